//! Rows on disk: `rows.csv.gz` (as committed) or `rows.csv` (as measured), or both, and `manifest.json` in one folder.
//!
//! Rows are appended one by one, each flushed whole before the next is measured, so that a killed sweep loses nothing but
//! the row it was measuring: a torn last line is cut off when the file is opened again. A configuration that is measured again
//! (because its energy was wanted later) is appended too; who reads the file sees the better of both rows, once. What is
//! appended to a committed set stands in `rows.csv` beside its `rows.csv.gz`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::compatibility::check_compatible;
use super::row::Row;
use crate::error::PerfError;
use crate::machine::{Machine, Manifest, OLDEST_PROTOCOL, PROTOCOL};

pub(crate) const ROWS: &str = "rows.csv";
pub(crate) const ROWS_COMPRESSED: &str = "rows.csv.gz";
pub(crate) const MANIFEST: &str = "manifest.json";
/// Columns without which a file is none of rows.
const FIRST_COLUMNS: [&str; 2] = ["kernel", "time_s"];

/// A machine's measurements, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// How and where they were made.
    pub manifest: Manifest,
    /// In the order they were measured.
    pub rows: Vec<Row>,
}

impl Dataset {
    /// Reads a folder that a profile wrote, compressed or not.
    ///
    /// # Errors
    /// A file that is missing or unreadable, a manifest of another protocol, a corrupt row (its line and column are named).
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

    /// Reads folders of one machine as one set; of a configuration that several hold the better row is taken, or the first.
    ///
    /// # Errors
    /// As [`Dataset::read`]; folders that were not measured alike.
    pub fn read_all(folders: &[PathBuf]) -> Result<Self, PerfError> {
        let sets = Self::read_alike(folders)?;
        let mut sets = sets.into_iter();
        let Some(mut all) = sets.next() else {
            return Err(PerfError::no_folders());
        };
        let mut rows = Configurations::default();
        std::mem::take(&mut all.rows)
            .into_iter()
            .chain(sets.flat_map(|set| set.rows))
            .for_each(|row| rows.take(row));
        all.rows = rows.rows;
        Ok(all)
    }

    /// Reads folders that were measured alike.
    ///
    /// # Errors
    /// As [`Dataset::read_all`].
    pub(crate) fn read_alike(folders: &[PathBuf]) -> Result<Vec<Self>, PerfError> {
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

/// Rows in the order their configurations were first met, of each configuration the best.
#[derive(Debug, Default)]
pub(crate) struct Configurations {
    pub rows: Vec<Row>,
    places: HashMap<String, usize>,
}

impl Configurations {
    /// Takes a row of a new configuration, or one that is better than what is there.
    pub fn take(&mut self, row: Row) {
        match self.places.entry(row.key()) {
            Entry::Vacant(place) => {
                place.insert(self.rows.len());
                self.rows.push(row);
            }
            Entry::Occupied(place) => {
                let held = &mut self.rows[*place.get()];
                if row.is_better_than(held) {
                    *held = row;
                }
            }
        }
    }

    /// The row of a configuration.
    pub fn get(&self, key: &str) -> Option<&Row> {
        self.rows.get(*self.places.get(key)?)
    }
}

/// Those that are there, in the order they are read.
pub(crate) fn files_of_rows(folder: &Path) -> Vec<PathBuf> {
    let paths = [ROWS_COMPRESSED, ROWS].map(|name| folder.join(name));
    paths.into_iter().filter(|path| path.is_file()).collect()
}

/// Whether a folder holds measurements, or the beginning of some.
pub(crate) fn holds_measurements(folder: &Path) -> bool {
    !files_of_rows(folder).is_empty() || folder.join(MANIFEST).is_file()
}

/// The rows of files that were measured on `machine`.
pub(crate) fn read_rows(files: &[PathBuf], machine: &Machine) -> Result<Configurations, PerfError> {
    let mut all = Configurations::default();
    for path in files {
        let file = BufReader::new(File::open(path).map_err(PerfError::io(path))?);
        match path.ends_with(ROWS_COMPRESSED) {
            true => read_file(path, GzDecoder::new(file), machine, &mut all)?,
            false => read_file(path, file, machine, &mut all)?,
        }
    }
    Ok(all)
}

fn read_file(
    path: &Path,
    text: impl Read,
    machine: &Machine,
    all: &mut Configurations,
) -> Result<(), PerfError> {
    let mut csv = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text);
    let columns = csv.headers().map_err(|error| corrupt(path, &error))?.clone();
    check_columns(path, &columns)?;
    for record in csv.records() {
        let record = record.map_err(|error| corrupt(path, &error))?;
        let row: Row = record
            .deserialize(Some(&columns))
            .map_err(|error| corrupt(path, &error))?;
        let checked = row.check().and_then(|()| row.check_rate(machine));
        checked.map_err(|what| PerfError::CorruptRow {
            path: path.to_owned(),
            line: record.position().map_or(0, csv::Position::line),
            what,
        })?;
        all.take(row);
    }
    Ok(())
}

/// Refuses a file of something else; an empty one has no columns yet.
fn check_columns(path: &Path, columns: &csv::StringRecord) -> Result<(), PerfError> {
    let absent = FIRST_COLUMNS
        .iter()
        .find(|name| !columns.iter().any(|column| column == **name));
    match absent {
        Some(name) if !columns.is_empty() => Err(PerfError::Malformed {
            path: path.to_owned(),
            what: format!("its columns are no row's: expected one called {name}"),
        }),
        _ => Ok(()),
    }
}

pub(crate) fn read_manifest(folder: &Path) -> Result<Manifest, PerfError> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(PerfError::io(&path))?;
    let malformed = |what: String| PerfError::Malformed {
        path: path.clone(),
        what,
    };
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&manifest.protocol) {
        let what = format!(
            "measured by protocol {}, this program reads {OLDEST_PROTOCOL} to {PROTOCOL}; measure again",
            manifest.protocol
        );
        return Err(malformed(what));
    }
    Ok(manifest)
}

fn corrupt(path: &Path, error: &csv::Error) -> PerfError {
    match error.position() {
        Some(position) => PerfError::CorruptRow {
            path: path.to_owned(),
            line: position.line(),
            what: error.to_string(),
        },
        // The file itself, or its compression.
        None => PerfError::Malformed {
            path: path.to_owned(),
            what: format!("{error}; copy it again"),
        },
    }
}
