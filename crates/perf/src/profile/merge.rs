//! Shards of a sweep, or sweeps of several days, put together: only what was measured alike.
//!
//! A configuration that several folders have is taken once, by the row that tells most ([`Row::is_better_than`]: a sound time,
//! then energy, then energy over a longer region), or by the first folder's. Folders of an older protocol may be among newer
//! ones, which take times alike: the new folder is of the newest, and each row's `energy_window_s` says how its energy was taken.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::dataset::Configurations;
use crate::{Dataset, Manifest, PerfError, Row, RowWriter};

/// What was put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Rows in the new folder.
    pub rows: usize,
    /// Rows whose configuration had a row already.
    pub repeated: usize,
    /// Rows of kernels or sizes that were to be left out.
    pub left_out: usize,
}

/// Writes the rows of several folders into a new one, each configuration once; `without` are beginnings of `kernel/config`
/// that are left out, as sizes a kernel no longer has.
///
/// # Errors
/// A folder that cannot be read, devices, drivers or protocols that differ, or a target that holds rows already.
pub fn merge(folders: &[PathBuf], without: &[String], out: &Path) -> Result<Merged, PerfError> {
    let sets: Vec<Dataset> = folders
        .iter()
        .map(|folder| Dataset::read(folder))
        .collect::<Result<_, _>>()?;
    let Some(first) = sets.first() else {
        return Ok(Merged {
            rows: 0,
            repeated: 0,
            left_out: 0,
        });
    };
    for (folder, set) in folders.iter().zip(&sets).skip(1) {
        check_alike(&folders[0], first, folder, set)?;
    }
    if out.join("rows.csv").exists() {
        return Err(PerfError::Malformed {
            path: out.to_owned(),
            what: "holds rows already; choose another --out".to_owned(),
        });
    }
    let manifest = manifest(&sets, first);
    let num_rows: usize = sets.iter().map(|set| set.rows.len()).sum();
    let is_kept = |row: &Row| {
        let name = format!("{}/{}", row.kernel, row.config);
        !without.iter().any(|word| name.starts_with(word.as_str()))
    };
    let (mut all, mut kept) = (Configurations::default(), 0);
    for row in sets.into_iter().flat_map(|set| set.rows).filter(is_kept) {
        kept += 1;
        all.take(row);
    }
    let mut writer = RowWriter::open(out, &manifest)?;
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

/// That of the first folder of the newest protocol; older ones are told.
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
            "; among them rows of protocol {oldest}, whose regions of energy are as short at the power limit as elsewhere \
             (energy_window_s)"
        );
    }
    manifest
}

/// The words of a method without what an earlier merge added.
fn method(manifest: &Manifest) -> String {
    let words = manifest.method.split("; among them rows of protocol").next();
    words.unwrap_or_default().to_owned()
}

fn check_alike(left: &Path, first: &Dataset, right: &Path, other: &Dataset) -> Result<(), PerfError> {
    let (a, b) = (&first.manifest, &other.manifest);
    let differ = |name: &str, one: String, two: String| match one == two {
        true => None,
        false => Some(format!("{name} {one} and {two}")),
    };
    let memory = |bytes: usize| format!("{} GiB", bytes >> 30);
    let what = differ("devices", a.machine.name.clone(), b.machine.name.clone())
        .or_else(|| {
            differ(
                "kinds",
                format!("{:?}", a.machine.kind),
                format!("{:?}", b.machine.kind),
            )
        })
        .or_else(|| {
            differ(
                "units",
                a.machine.num_units.to_string(),
                b.machine.num_units.to_string(),
            )
        })
        .or_else(|| {
            differ(
                "memory",
                memory(a.machine.memory_bytes),
                memory(b.machine.memory_bytes),
            )
        })
        .or_else(|| {
            differ(
                "power limits",
                format!("{:?}", a.machine.power_limit_w),
                format!("{:?}", b.machine.power_limit_w),
            )
        })
        .or_else(|| differ("drivers", a.driver.clone(), b.driver.clone()))
        .or_else(|| match a.protocol == b.protocol {
            true => differ("methods", method(a), method(b)),
            false => None,
        })
        .or_else(|| differ("operands", a.operands.clone(), b.operands.clone()));
    what.map_or(Ok(()), |what| {
        Err(PerfError::Mismatch {
            left: left.to_owned(),
            right: right.to_owned(),
            what,
        })
    })
}
