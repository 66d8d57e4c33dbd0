//! The files of a measured set: `rows.csv.gz` (as committed), `rows.csv` (as measured) or both, and `manifest.json`.
//!
//! Rows are appended one by one, each in one write before the next row is measured. A sweep that is killed loses at most
//! the row that it was writing; the torn last line is cut off when the file is opened again. A configuration may be
//! measured twice, because its energy was wanted later. Both rows stay in the file, and a reader gets the better one.
//! Rows that are added to a committed set stand in `rows.csv` beside its `rows.csv.gz`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::best_rows::BestRows;
use super::manifest::{Manifest, OLDEST_PROTOCOL, PROTOCOL};
use super::pace::Paces;
use super::row::Row;
use crate::error::PerfError;
use crate::machine::Machine;

pub(crate) const ROWS: &str = "rows.csv";
pub(crate) const ROWS_COMPRESSED: &str = "rows.csv.gz";
pub(crate) const MANIFEST: &str = "manifest.json";

/// A file of rows has at least these columns.
const FIRST_COLUMNS: [&str; 2] = ["kernel", "time_s"];

/// The files of rows that a folder holds, in the order in which they are read.
pub(crate) fn files_of_rows(folder: &Path) -> Vec<PathBuf> {
    let paths = [ROWS_COMPRESSED, ROWS].map(|name| folder.join(name));
    paths.into_iter().filter(|path| path.is_file()).collect()
}

/// Whether a folder holds rows or a manifest.
pub(crate) fn holds_measurements(folder: &Path) -> bool {
    !files_of_rows(folder).is_empty() || folder.join(MANIFEST).is_file()
}

/// Reads the rows of files that were measured on `machine`.
pub(crate) fn read_rows(files: &[PathBuf], machine: &Machine) -> Result<BestRows, PerfError> {
    let (mut all, mut paces) = (BestRows::default(), Paces::default());
    for path in files {
        let file = BufReader::new(File::open(path).map_err(PerfError::io(path))?);
        let kept = (&mut all, &mut paces);
        match path.ends_with(ROWS_COMPRESSED) {
            true => read_file(path, GzDecoder::new(file), machine, kept)?,
            false => read_file(path, file, machine, kept)?,
        }
    }
    paces.check()?;
    Ok(all)
}

fn read_file(
    path: &Path,
    text: impl Read,
    machine: &Machine,
    (all, paces): (&mut BestRows, &mut Paces),
) -> Result<(), PerfError> {
    let mut csv = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text);
    let columns = csv.headers().map_err(|error| corrupt(path, &error))?.clone();
    check_columns(path, &columns)?;
    for record in csv.records() {
        let record = record.map_err(|error| corrupt(path, &error))?;
        let row: Row = record
            .deserialize(Some(&columns))
            .map_err(|error| corrupt(path, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let checked = row.check().and_then(|()| row.check_rate(machine));
        checked.map_err(|what| PerfError::CorruptRow {
            path: path.to_owned(),
            line,
            what,
        })?;
        paces.note(&row, machine, path, line);
        all.take(row);
    }
    Ok(())
}

/// Refuses a file of something else than rows. An empty file has no columns yet.
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

pub(crate) fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), PerfError> {
    let (path, aside) = (folder.join(MANIFEST), folder.join(".manifest.json"));
    let text = serde_json::to_string_pretty(manifest).expect("a manifest is plain data");
    std::fs::write(&aside, text + "\n").map_err(PerfError::io(&aside))?;
    std::fs::rename(&aside, &path).map_err(PerfError::io(&path))
}

/// The first line of a file that is no comment, with its line end; empty in an empty file.
pub(crate) fn first_line(path: &Path) -> Result<Vec<u8>, PerfError> {
    let mut file = BufReader::new(File::open(path).map_err(PerfError::io(path))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        file.read_until(b'\n', &mut line).map_err(PerfError::io(path))?;
        if !line.starts_with(b"#") {
            return Ok(line);
        }
    }
}

/// Refuses a folder that holds rows, compressed or not, or a manifest. `advice` says what to do instead.
///
/// # Errors
/// The file that is there.
pub(crate) fn check_vacant(folder: &Path, advice: &str) -> Result<(), PerfError> {
    let names = [ROWS, ROWS_COMPRESSED, MANIFEST];
    match names.into_iter().find(|name| folder.join(name).exists()) {
        None => Ok(()),
        Some(name) => Err(PerfError::Malformed {
            path: folder.to_owned(),
            what: format!("holds rows already ({name}); {advice}"),
        }),
    }
}

/// Cuts off what follows the last line end: a line that a kill interrupted.
pub(crate) fn cut_torn_line(path: &Path) -> Result<(), PerfError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .open(path)
        .map_err(PerfError::io(path))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(PerfError::io(path))?;
    let whole = text
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    file.set_len(whole as u64).map_err(PerfError::io(path))
}
