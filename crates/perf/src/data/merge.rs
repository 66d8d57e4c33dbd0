//! Several folders become one: the shards of a sweep, or sweeps of several days. Only compatible sets are merged.
//!
//! A configuration that several folders hold is taken once, by its best row (a sound time first, then energy, then energy
//! over a longer window); between equal rows the first folder decides. Folders of an older protocol may be merged with
//! newer ones, because the newer protocol takes times as the older one did. The new folder gets the newest protocol, and
//! the column `energy_window_s` of each row says how its energy was taken.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::best_rows::BestRows;
use super::compatibility::OLDER_ROWS;
use super::dataset::Dataset;
use super::files::check_vacant;
use super::manifest::Manifest;
use super::row::Row;
use super::writer::RowWriter;
use crate::error::PerfError;

/// What a merge did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Rows in the new folder.
    pub rows: usize,
    /// Rows whose configuration the new folder held already.
    pub repeated: usize,
    /// Rows of kernels or sizes that were to be left out.
    pub left_out: usize,
}

/// Writes the rows of several folders into a new folder, each configuration once. Rows whose `kernel/config` begins with a word
/// of `without` are left out, as configurations that a kernel no longer has.
///
/// # Errors
/// A folder cannot be read, the sets are not compatible, or `out` holds rows already.
pub fn merge(folders: &[PathBuf], without: &[String], out: &Path) -> Result<Merged, PerfError> {
    check_vacant(out, "choose another --out")?;
    let sets = Dataset::read_compatible(folders)?;
    let Some(first) = sets.first() else {
        return Err(PerfError::no_folders());
    };
    let manifest = manifest(&sets, first);
    let num_rows: usize = sets.iter().map(|set| set.rows.len()).sum();
    let is_kept = |row: &Row| {
        let name = format!("{}/{}", row.kernel, row.config);
        !without.iter().any(|word| name.starts_with(word.as_str()))
    };
    let (mut all, mut kept) = (BestRows::default(), 0);
    for row in sets.into_iter().flat_map(|set| set.rows).filter(is_kept) {
        kept += 1;
        all.take(row);
    }
    let mut writer = RowWriter::create(out, &manifest)?;
    for row in &all.rows {
        writer.append(row)?;
    }
    let rows = writer.num_rows();
    Ok(Merged {
        rows,
        repeated: kept - rows,
        left_out: num_rows - kept,
    })
}

/// The manifest of the first folder of the newest protocol. Its method names the oldest protocol among the rows.
fn manifest(sets: &[Dataset], first: &Dataset) -> Manifest {
    let newest = sets
        .iter()
        .map(|set| &set.manifest)
        .fold(&first.manifest, |newest, manifest| {
            if manifest.protocol > newest.protocol {
                manifest
            } else {
                newest
            }
        });
    let mut manifest = newest.clone();
    let oldest = sets.iter().map(|set| set.manifest.protocol).min();
    if let Some(oldest) = oldest.filter(|&oldest| oldest < manifest.protocol) {
        manifest.method += &format!(
            "{OLDER_ROWS} {oldest}, whose regions of energy are as short at the power limit as elsewhere (energy_window_s)"
        );
    }
    manifest
}
