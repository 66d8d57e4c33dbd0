//! Rows on disk: `rows.csv` (or `rows.csv.gz`, as committed) and `manifest.json` in one folder.
//!
//! Rows are appended one by one, each flushed whole before the next is measured, so that a killed sweep loses nothing but
//! the row it was measuring: a torn last line is cut off when the file is opened again. A configuration that is measured again
//! (because its energy was wanted later) is appended too; who reads the file sees the better of both rows, once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::{Manifest, OLDEST_PROTOCOL, PROTOCOL, PerfError, Row};

const ROWS: &str = "rows.csv";
const ROWS_COMPRESSED: &str = "rows.csv.gz";
const MANIFEST: &str = "manifest.json";

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
    /// A file that is missing or unreadable, a manifest of another protocol, a corrupt row (its line is named).
    pub fn read(folder: &Path) -> Result<Self, PerfError> {
        let manifest = read_manifest(folder)?;
        let (path, reader) = open_rows(folder)?;
        let mut csv = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(reader);
        let rows = csv
            .deserialize()
            .map(|row| row.map_err(|error| corrupt(&path, &error)));
        let mut all = Configurations::default();
        for row in rows {
            all.take(row?);
        }
        Ok(Self {
            manifest,
            rows: all.rows,
        })
    }
}

impl Dataset {
    /// Reads folders of one machine as one set; of a configuration that several hold the better row is taken, or the first.
    ///
    /// # Errors
    /// As [`Dataset::read`]; folders of different machines.
    pub fn read_all(folders: &[PathBuf]) -> Result<Self, PerfError> {
        let mut sets = folders
            .iter()
            .map(|folder| Ok::<_, PerfError>((folder, Self::read(folder)?)));
        let Some(first) = sets.next() else {
            return Err(PerfError::TooLittle {
                what: "folders of measurements".to_owned(),
                expected: "at least 1".to_owned(),
                got: "none".to_owned(),
            });
        };
        let (first, mut all) = first?;
        let mut rows = Configurations::default();
        std::mem::take(&mut all.rows)
            .into_iter()
            .for_each(|row| rows.take(row));
        for set in sets {
            let (folder, set): (&PathBuf, Self) = set?;
            let (was, is) = (&all.manifest.machine, &set.manifest.machine);
            if (&was.name, was.kind, was.num_units) != (&is.name, is.kind, is.num_units) {
                return Err(PerfError::Mismatch {
                    left: first.clone(),
                    right: folder.clone(),
                    what: format!(
                        "they are of different machines, {} with {} units and {} with {}; fit each apart",
                        was.name, was.num_units, is.name, is.num_units
                    ),
                });
            }
            set.rows.into_iter().for_each(|row| rows.take(row));
        }
        all.rows = rows.rows;
        Ok(all)
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

fn open_rows(folder: &Path) -> Result<(PathBuf, Box<dyn Read>), PerfError> {
    let compressed = folder.join(ROWS_COMPRESSED);
    if compressed.is_file() {
        let file = File::open(&compressed).map_err(PerfError::io(&compressed))?;
        return Ok((compressed, Box::new(GzDecoder::new(BufReader::new(file)))));
    }
    let plain = folder.join(ROWS);
    let file = File::open(&plain).map_err(PerfError::io(&plain))?;
    Ok((plain, Box::new(BufReader::new(file))))
}

fn read_manifest(folder: &Path) -> Result<Manifest, PerfError> {
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
    PerfError::CorruptRow {
        path: path.to_owned(),
        line: error.position().map_or(0, csv::Position::line),
        what: error.to_string(),
    }
}

/// Appends rows to a folder, and knows which configurations it holds already.
#[derive(Debug)]
pub struct RowWriter {
    path: PathBuf,
    file: File,
    held: Configurations,
}

impl RowWriter {
    /// Begins a folder, or goes on with one that was measured on the same machine by the same protocol.
    ///
    /// # Errors
    /// A folder of another machine or protocol, a corrupt row, or files that cannot be read or written.
    pub fn open(folder: &Path, manifest: &Manifest) -> Result<Self, PerfError> {
        std::fs::create_dir_all(folder).map_err(PerfError::io(folder))?;
        let path = folder.join(ROWS);
        let mut held = Configurations::default();
        if path.is_file() {
            cut_torn_line(&path)?;
            let earlier = Dataset::read(folder)?;
            check_same_machine(folder, &earlier.manifest, manifest)?;
            check_same_protocol(folder, &earlier.manifest, manifest)?;
            earlier.rows.into_iter().for_each(|row| held.take(row));
        } else {
            write_manifest(folder, manifest)?;
        }
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .open(&path)
            .map_err(PerfError::io(&path))?;
        Ok(Self { path, file, held })
    }

    /// The best row of a configuration that was measured already.
    pub fn held(&self, key: &str) -> Option<&Row> {
        self.held.get(key)
    }

    /// Configurations in the folder.
    pub fn num_rows(&self) -> usize {
        self.held.rows.len()
    }

    /// Appends a row and says so; one of a configuration that is there already only if it is better.
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
        let empty = self.file.metadata().map_err(PerfError::io(&self.path))?.len() == 0;
        let mut csv = csv::WriterBuilder::new()
            .has_headers(empty)
            .from_writer(Vec::new());
        csv.serialize(row).expect("a row has scalar fields only");
        let line = csv.into_inner().expect("writing to memory");
        // One write a row: a kill leaves whole lines and at most one torn one.
        self.file.write_all(&line).map_err(PerfError::io(&self.path))?;
        self.held.take(row.clone());
        Ok(true)
    }
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), PerfError> {
    let (path, aside) = (folder.join(MANIFEST), folder.join(".manifest.json"));
    let text = serde_json::to_string_pretty(manifest).expect("a manifest is plain data");
    std::fs::write(&aside, text + "\n").map_err(PerfError::io(&aside))?;
    std::fs::rename(&aside, &path).map_err(PerfError::io(&path))
}

pub(crate) fn check_same_machine(folder: &Path, earlier: &Manifest, now: &Manifest) -> Result<(), PerfError> {
    let (was, is) = (&earlier.machine, &now.machine);
    if (&was.name, was.kind, was.num_units) == (&is.name, is.kind, is.num_units) {
        return Ok(());
    }
    Err(PerfError::Malformed {
        path: folder.join(MANIFEST),
        what: format!(
            "measured on {} with {} units, this is {} with {}; choose another --out",
            was.name, was.num_units, is.name, is.num_units
        ),
    })
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

/// Cuts what follows the last newline: the line a kill interrupted.
fn cut_torn_line(path: &Path) -> Result<(), PerfError> {
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
    file.set_len(whole as u64).map_err(PerfError::io(path))?;
    file.seek(SeekFrom::End(0)).map_err(PerfError::io(path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cut, Layout, Machine, MachineKind};

    fn manifest(name: &str) -> Manifest {
        Manifest {
            protocol: PROTOCOL,
            machine: Machine {
                name: name.to_owned(),
                kind: MachineKind::Gpu,
                num_units: 132,
                clock_hz: 1.98e9,
                read_bytes_per_s: 4.2e12,
                cache_bytes: 60 << 20,
                memory_bytes: 143 << 30,
                shared_bytes: 232_448,
                capability: 90,
                int8_ops_per_s: 1.3e15,
                half_ops_per_s: 7e14,
                float_ops_per_s: 5e13,
                idle_power_w: Some(78.0),
                power_limit_w: Some(700.0),
                small_ops: None,
            },
            driver: String::new(),
            version: String::new(),
            date: "2026-11-22".to_owned(),
            method: String::new(),
            operands: String::new(),
        }
    }

    fn row(m: usize) -> Row {
        Row {
            kernel: "gemm_w4a8_sm90".to_owned(),
            config: "m64n128".to_owned(),
            m,
            n: 4096,
            k: 4096,
            group_size: 128,
            layout: Layout::Nt,
            alpha: 1.0,
            beta: 0.0,
            output: "bf16".to_owned(),
            tile_m: 64,
            tile_n: 128,
            tile_k: 128,
            stages: 12,
            threads: 384,
            cluster: 1,
            split_k: 1,
            cut: Cut::Tail,
            ctas: 132,
            ctas_per_sm: 1,
            occupancy: 0.1875,
            registers: 168,
            shared_bytes: 218_344,
            waves: 1.0,
            verified: "freivalds".to_owned(),
            mark: None,
            time_s: Some(1.25e-5),
            time_q1_s: Some(1.2e-5),
            time_q3_s: Some(1.3e-5),
            runs: 9,
            power_w: None,
            energy_j: None,
            energy_window_s: None,
            energy_runs: 0,
            sm_clock_hz: Some(1.98e9),
            memory_clock_hz: None,
            temperature_c: None,
            throttle_reasons: Some(4),
        }
    }

    #[test]
    fn what_is_appended_is_read_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        let rows = [row(1), row(2)];
        for row in &rows {
            assert!(writer.append(row).unwrap());
        }
        assert!(!writer.append(&row(2)).unwrap());
        let read = Dataset::read(folder.path()).unwrap();
        assert_eq!(read.rows, rows);
        assert_eq!(read.manifest, manifest("NVIDIA H200"));
    }

    #[test]
    fn sweep_that_was_killed_inside_a_row_goes_on_without_losing_or_doubling_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        for row in [row(1), row(2)] {
            writer.append(&row).unwrap();
        }
        let path = folder.path().join(ROWS);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 17]).unwrap();
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        assert!(writer.held(&row(1).key()).is_some() && writer.held(&row(2).key()).is_none());
        writer.append(&row(2)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn energy_that_comes_later_takes_the_place_of_the_row_without_and_is_never_lost_again() {
        let folder = tempfile::tempdir().unwrap();
        let with_energy = |window_s: f64| Row {
            power_w: Some(690.0),
            energy_j: Some(690.0 * 1.25e-5),
            energy_window_s: Some(window_s),
            ..row(2)
        };
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        let appended = [
            row(1),
            row(2),
            with_energy(0.2),
            row(2),
            with_energy(0.2002),
            with_energy(1.0),
        ]
        .map(|row| writer.append(&row).unwrap());
        assert_eq!(appended, [true, true, true, false, false, true]);
        assert_eq!(writer.num_rows(), 2);
        assert_eq!(
            Dataset::read(folder.path()).unwrap().rows,
            [row(1), with_energy(1.0)]
        );
        // Also when a sweep goes on with the folder, and when a kill tore the line.
        let path = folder.path().join(ROWS);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        assert_eq!(writer.held(&row(2).key()), Some(&with_energy(0.2)));
        assert!(writer.append(&with_energy(1.0)).unwrap());
        let marked = Row {
            mark: Some(crate::Mark::Unsteady),
            ..with_energy(9.0)
        };
        assert!(
            !writer.append(&marked).unwrap(),
            "a marked row took a sound one's place"
        );
    }

    #[test]
    fn folder_of_another_protocol_is_read_but_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let of = |protocol| Manifest {
            protocol,
            ..manifest("NVIDIA H200")
        };
        let mut writer = RowWriter::open(folder.path(), &of(OLDEST_PROTOCOL)).unwrap();
        writer.append(&row(1)).unwrap();
        assert_eq!(Dataset::read(folder.path()).unwrap().rows.len(), 1);
        let error = RowWriter::open(folder.path(), &of(PROTOCOL)).unwrap_err();
        assert!(error.to_string().contains("--known"), "{error}");
        let newer = tempfile::tempdir().unwrap();
        write_manifest(newer.path(), &of(PROTOCOL + 1)).unwrap();
        let error = Dataset::read(newer.path()).unwrap_err();
        assert!(error.to_string().contains("this program reads 1 to 2"), "{error}");
    }

    #[test]
    fn another_machine_and_a_corrupt_row_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        writer.append(&row(1)).unwrap();
        let error = RowWriter::open(folder.path(), &manifest("NVIDIA L4")).unwrap_err();
        assert!(error.to_string().contains("choose another --out"), "{error}");
        let path = folder.path().join(ROWS);
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace("4096,4096", "4096,many");
        std::fs::write(&path, text).unwrap();
        let error = Dataset::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
