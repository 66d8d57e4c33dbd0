//! Appends rows to a folder. A folder is begun or continued; nothing in it is ever written over.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::best_rows::BestRows;
use super::compatibility::difference;
use super::files::{
    MANIFEST, ROWS, check_vacant, cut_torn_line, files_of_rows, first_line, holds_measurements,
    read_manifest, read_rows, write_manifest,
};
use super::manifest::Manifest;
use super::row::Row;
use crate::error::PerfError;

/// Appends rows to a folder, and knows which configurations it holds already.
#[derive(Debug)]
pub struct RowWriter {
    path: PathBuf,
    file: File,
    /// Whether the header of the file was compared with this program's, or written.
    has_header: bool,
    best_rows: BestRows,
}

impl RowWriter {
    /// Begins a folder that holds no rows yet.
    ///
    /// # Errors
    /// The folder holds rows or a manifest, or a file cannot be written.
    pub fn create(folder: &Path, manifest: &Manifest) -> Result<Self, PerfError> {
        check_vacant(folder, "choose another --out")?;
        std::fs::create_dir_all(folder).map_err(PerfError::io(folder))?;
        write_manifest(folder, manifest)?;
        Self::append_to(folder, BestRows::default())
    }

    /// Continues a folder whose set is compatible, also one whose rows are compressed, or begins a folder.
    ///
    /// # Errors
    /// The folder has another machine, protocol or method, a row is corrupt, or a file cannot be read or written.
    pub fn open(folder: &Path, manifest: &Manifest) -> Result<Self, PerfError> {
        if !holds_measurements(folder) {
            return Self::create(folder, manifest);
        }
        let earlier = read_manifest(folder)?;
        check_compatible_with(folder, &earlier, manifest)?;
        check_same_protocol(folder, &earlier, manifest)?;
        let path = folder.join(ROWS);
        if path.is_file() {
            cut_torn_line(&path)?;
        }
        Self::append_to(folder, read_rows(&files_of_rows(folder), &earlier.machine)?)
    }

    fn append_to(folder: &Path, best_rows: BestRows) -> Result<Self, PerfError> {
        let path = folder.join(ROWS);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .open(&path)
            .map_err(PerfError::io(&path))?;
        Ok(Self {
            path,
            file,
            has_header: false,
            best_rows,
        })
    }

    /// The best row of every configuration.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.best_rows.rows
    }

    /// The best row of a configuration that was measured already.
    pub fn held(&self, key: &str) -> Option<&Row> {
        self.best_rows.get(key)
    }

    /// Configurations in the folder.
    pub fn num_rows(&self) -> usize {
        self.best_rows.rows.len()
    }

    /// Appends a row and returns true. A row whose configuration is there already is appended only if it is better.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, row: &Row) -> Result<bool, PerfError> {
        if self
            .held(&row.key())
            .is_some_and(|held| !row.is_better_than(held))
        {
            return Ok(false);
        }
        let line = self.line_of(row)?;
        // One write for each row: a kill leaves whole lines and at most one torn line.
        self.file.write_all(&line).map_err(PerfError::io(&self.path))?;
        self.has_header = true;
        self.best_rows.take(row.clone());
        Ok(true)
    }

    /// A row as the file takes it: with the header above it if the file is empty.
    fn line_of(&self, row: &Row) -> Result<Vec<u8>, PerfError> {
        let lines = header_and_line(row);
        let end = lines
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let (header, line) = lines.split_at(end);
        if self.has_header {
            return Ok(line.to_owned());
        }
        let there = first_line(&self.path)?;
        match there.is_empty() {
            true => Ok(lines),
            false if there == header => Ok(line.to_owned()),
            false => Err(self.other_columns(&there, header)),
        }
    }

    fn other_columns(&self, there: &[u8], header: &[u8]) -> PerfError {
        PerfError::Malformed {
            path: self.path.clone(),
            what: format!(
                "its columns are {}, this program writes {}; choose another --out",
                String::from_utf8_lossy(there).trim_end(),
                String::from_utf8_lossy(header).trim_end()
            ),
        }
    }
}

/// A row as CSV, below the header.
fn header_and_line(row: &Row) -> Vec<u8> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.serialize(row).expect("a row has scalar fields only");
    csv.into_inner().expect("writing to memory")
}

fn check_compatible_with(folder: &Path, earlier: &Manifest, now: &Manifest) -> Result<(), PerfError> {
    match difference(earlier, now) {
        None => Ok(()),
        Some(what) => Err(PerfError::Malformed {
            path: folder.join(MANIFEST),
            what: format!("it and this run are not measured alike: {what}; choose another --out"),
        }),
    }
}

fn check_same_protocol(folder: &Path, earlier: &Manifest, now: &Manifest) -> Result<(), PerfError> {
    if earlier.protocol == now.protocol {
        return Ok(());
    }
    Err(PerfError::Malformed {
        path: folder.join(MANIFEST),
        what: format!(
            "measured by protocol {}, this program measures by {}; choose another --out, name this folder with --known, and \
             merge both",
            earlier.protocol, now.protocol
        ),
    })
}
