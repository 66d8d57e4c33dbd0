//! A measured set in memory, read from the folder that `profile` wrote.

use std::path::{Path, PathBuf};

use super::best_rows::BestRows;
use super::compatibility::check_compatible;
use super::files::{files_of_rows, read_manifest, read_rows};
use super::manifest::Manifest;
use super::row::Row;
use crate::error::PerfError;

/// The measurements of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// How and where the rows were measured.
    pub manifest: Manifest,
    /// The rows, in the order in which they were measured.
    pub rows: Vec<Row>,
}

impl Dataset {
    /// Reads a folder that `profile` wrote, compressed or not.
    ///
    /// # Errors
    /// A file is missing or unreadable, the manifest has another protocol, or a row is corrupt; the error names its line and column.
    pub fn read(folder: &Path) -> Result<Self, PerfError> {
        if !folder.is_dir() {
            return Err(PerfError::Malformed {
                path: folder.to_owned(),
                what: "no such folder; expected one that `profile` wrote".to_owned(),
            });
        }
        let manifest = read_manifest(folder)?;
        let files = files_of_rows(folder);
        if files.is_empty() {
            let absent =
                std::io::Error::new(std::io::ErrorKind::NotFound, "no rows.csv or rows.csv.gz in it");
            return Err(PerfError::io(folder)(absent));
        }
        let rows = read_rows(&files, &manifest.machine)?.rows;
        Ok(Self { manifest, rows })
    }

    /// Reads folders of one machine as one set. Of a configuration that several folders hold, the best row is taken, or the first.
    ///
    /// # Errors
    /// As [`Dataset::read`], and where the sets are not compatible.
    pub fn read_all(folders: &[PathBuf]) -> Result<Self, PerfError> {
        let sets = Self::read_compatible(folders)?;
        let mut sets = sets.into_iter();
        let Some(mut all) = sets.next() else {
            return Err(PerfError::no_folders());
        };
        let mut rows = BestRows::default();
        std::mem::take(&mut all.rows)
            .into_iter()
            .chain(sets.flat_map(|set| set.rows))
            .for_each(|row| rows.take(row));
        all.rows = rows.rows;
        Ok(all)
    }

    /// Reads folders whose sets are compatible.
    ///
    /// # Errors
    /// As [`Dataset::read_all`].
    pub(crate) fn read_compatible(folders: &[PathBuf]) -> Result<Vec<Self>, PerfError> {
        let mut sets: Vec<Self> = Vec::new();
        for folder in folders {
            let set = Self::read(folder)?;
            if let Some(first) = sets.first() {
                check_compatible((&folders[0], &first.manifest), (folder, &set.manifest))?;
            }
            sets.push(set);
        }
        Ok(sets)
    }
}
