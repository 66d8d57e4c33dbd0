//! Rows on disk: `rows.csv.gz` (as committed) or `rows.csv` (as measured), or both, and `manifest.json` in one folder.
//!
//! Rows are appended one by one, each flushed whole before the next is measured, so that a killed sweep loses nothing but
//! the row it was measuring: a torn last line is cut off when the file is opened again. A configuration that is measured again
//! (because its energy was wanted later) is appended too; who reads the file sees the better of both rows, once. What is
//! appended to a committed set stands in `rows.csv` beside its `rows.csv.gz`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::{Manifest, OLDEST_PROTOCOL, PROTOCOL, PerfError, Row, alike};

const ROWS: &str = "rows.csv";
const ROWS_COMPRESSED: &str = "rows.csv.gz";
const MANIFEST: &str = "manifest.json";
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
        let manifest = read_manifest(folder)?;
        let files = files_of_rows(folder);
        if files.is_empty() {
            let absent =
                std::io::Error::new(std::io::ErrorKind::NotFound, "no rows.csv or rows.csv.gz in it");
            return Err(PerfError::io(folder)(absent));
        }
        let rows = read_rows(&files)?.rows;
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
                alike::check((&folders[0], &first.manifest), (folder, &set.manifest))?;
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
fn files_of_rows(folder: &Path) -> Vec<PathBuf> {
    let paths = [ROWS_COMPRESSED, ROWS].map(|name| folder.join(name));
    paths.into_iter().filter(|path| path.is_file()).collect()
}

/// Whether a folder holds measurements, or the beginning of some.
fn holds_measurements(folder: &Path) -> bool {
    !files_of_rows(folder).is_empty() || folder.join(MANIFEST).is_file()
}

fn read_rows(files: &[PathBuf]) -> Result<Configurations, PerfError> {
    let mut all = Configurations::default();
    for path in files {
        let file = BufReader::new(File::open(path).map_err(PerfError::io(path))?);
        match path.ends_with(ROWS_COMPRESSED) {
            true => read_file(path, GzDecoder::new(file), &mut all)?,
            false => read_file(path, file, &mut all)?,
        }
    }
    Ok(all)
}

fn read_file(path: &Path, text: impl Read, all: &mut Configurations) -> Result<(), PerfError> {
    let mut csv = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text);
    let columns = csv.headers().map_err(|error| corrupt(path, &error))?.clone();
    check_columns(path, &columns)?;
    for record in csv.records() {
        let record = record.map_err(|error| corrupt(path, &error))?;
        let row: Row = record
            .deserialize(Some(&columns))
            .map_err(|error| corrupt(path, &error))?;
        row.check().map_err(|what| PerfError::CorruptRow {
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
    /// Begins a folder that holds nothing yet.
    ///
    /// # Errors
    /// A folder that holds rows or a manifest; files that cannot be written.
    pub fn create(folder: &Path, manifest: &Manifest) -> Result<Self, PerfError> {
        check_vacant(folder, "choose another --out")?;
        std::fs::create_dir_all(folder).map_err(PerfError::io(folder))?;
        write_manifest(folder, manifest)?;
        Self::append_to(folder, Configurations::default())
    }

    /// Goes on with a folder that was measured alike, also one whose rows are compressed; or begins one.
    ///
    /// # Errors
    /// A folder of another machine, protocol or method, a corrupt row, or files that cannot be read or written.
    pub fn open(folder: &Path, manifest: &Manifest) -> Result<Self, PerfError> {
        if !holds_measurements(folder) {
            return Self::create(folder, manifest);
        }
        let earlier = read_manifest(folder)?;
        check_same_protocol(folder, &earlier, manifest)?;
        check_goes_on(folder, &earlier, manifest)?;
        let path = folder.join(ROWS);
        if path.is_file() {
            cut_torn_line(&path)?;
        }
        Self::append_to(folder, read_rows(&files_of_rows(folder))?)
    }

    fn append_to(folder: &Path, held: Configurations) -> Result<Self, PerfError> {
        let path = folder.join(ROWS);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .open(&path)
            .map_err(PerfError::io(&path))?;
        Ok(Self { path, file, held })
    }

    /// Every configuration's best row.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.held.rows
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
        let line = self.line_of(row)?;
        // One write a row: a kill leaves whole lines and at most one torn one.
        self.file.write_all(&line).map_err(PerfError::io(&self.path))?;
        self.held.take(row.clone());
        Ok(true)
    }

    /// A row as the file takes it: below the header if it is the first.
    fn line_of(&self, row: &Row) -> Result<Vec<u8>, PerfError> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.serialize(row).expect("a row has scalar fields only");
        let lines = csv.into_inner().expect("writing to memory");
        let header_len = lines
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let (header, line) = lines.split_at(header_len);
        let there = first_line(&self.path)?;
        match there.is_empty() {
            true => Ok(lines),
            false if there == header => Ok(line.to_owned()),
            false => Err(PerfError::Malformed {
                path: self.path.clone(),
                what: format!(
                    "its columns are {}, this program writes {}; choose another --out",
                    String::from_utf8_lossy(&there).trim_end(),
                    String::from_utf8_lossy(header).trim_end()
                ),
            }),
        }
    }
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), PerfError> {
    let (path, aside) = (folder.join(MANIFEST), folder.join(".manifest.json"));
    let text = serde_json::to_string_pretty(manifest).expect("a manifest is plain data");
    std::fs::write(&aside, text + "\n").map_err(PerfError::io(&aside))?;
    std::fs::rename(&aside, &path).map_err(PerfError::io(&path))
}

/// The first line of a file that is no comment, with its end; empty where there is none.
fn first_line(path: &Path) -> Result<Vec<u8>, PerfError> {
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

/// Refuses a folder that holds rows, compressed or not, or a manifest; `advice` says what to do instead.
///
/// # Errors
/// Which file is there.
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

fn check_goes_on(folder: &Path, earlier: &Manifest, now: &Manifest) -> Result<(), PerfError> {
    match alike::difference(earlier, now) {
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

    fn compress(folder: &Path) {
        let text = std::fs::read(folder.join(ROWS)).unwrap();
        let file = File::create(folder.join(ROWS_COMPRESSED)).unwrap();
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gz.write_all(&text).unwrap();
        gz.finish().unwrap();
        std::fs::remove_file(folder.join(ROWS)).unwrap();
    }

    #[test]
    fn committed_set_is_added_to_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::create(folder.path(), &manifest("NVIDIA H200")).unwrap();
        writer.append(&row(1)).unwrap();
        compress(folder.path());
        let of_before = std::fs::read(folder.path().join(MANIFEST)).unwrap();
        for name in ["NVIDIA H200", "NVIDIA L4"] {
            let error = RowWriter::create(folder.path(), &manifest(name)).unwrap_err();
            assert!(error.to_string().contains("rows.csv.gz"), "{error}");
        }
        RowWriter::open(folder.path(), &manifest("NVIDIA L4")).unwrap_err();
        let mut later = manifest("NVIDIA H200");
        later.date = "2026-12-24".to_owned();
        let mut writer = RowWriter::open(folder.path(), &later).unwrap();
        assert_eq!(writer.num_rows(), 1);
        assert!(!writer.append(&row(1)).unwrap() && writer.append(&row(2)).unwrap());
        assert_eq!(std::fs::read(folder.path().join(MANIFEST)).unwrap(), of_before);
        assert_eq!(Dataset::read(folder.path()).unwrap().rows, [row(1), row(2)]);
        let writer = RowWriter::open(folder.path(), &later).unwrap();
        assert_eq!(writer.num_rows(), 2);
    }

    #[test]
    fn manifest_alone_is_gone_on_with_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        write_manifest(folder.path(), &manifest("NVIDIA H200")).unwrap();
        RowWriter::create(folder.path(), &manifest("NVIDIA H200")).unwrap_err();
        let error = Dataset::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("rows.csv"), "{error}");
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        assert!(writer.append(&row(1)).unwrap());
        assert_eq!(Dataset::read(folder.path()).unwrap().rows, [row(1)]);
    }

    #[test]
    fn sets_that_were_not_measured_alike_are_neither_gone_on_with_nor_read_as_one() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [first.path().to_owned(), second.path().to_owned()];
        let mut writer = RowWriter::open(first.path(), &manifest("NVIDIA H200")).unwrap();
        writer.append(&row(1)).unwrap();
        let changes: [(&str, fn(&mut Manifest)); 5] = [
            ("drivers", |set| set.driver = "another".to_owned()),
            ("methods", |set| set.method = "10 movements long".to_owned()),
            ("operands", |set| set.operands = "zeros".to_owned()),
            ("power limits", |set| set.machine.power_limit_w = Some(500.0)),
            ("units", |set| set.machine.num_units = 114),
        ];
        for (name, change) in changes {
            let mut other = manifest("NVIDIA H200");
            change(&mut other);
            let error = RowWriter::open(first.path(), &other).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("another --out"), "{error}");
            write_manifest(second.path(), &other).unwrap();
            std::fs::copy(first.path().join(ROWS), second.path().join(ROWS)).unwrap();
            let error = Dataset::read_all(&folders).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("cannot be merged"),
                "{error}"
            );
        }
    }

    #[test]
    fn file_with_other_columns_is_neither_read_nor_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        let path = folder.path().join(ROWS);
        std::fs::write(&path, "name,seconds\n").unwrap();
        let error = Dataset::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("kernel"), "{error}");
        let error = writer.append(&row(1)).unwrap_err().to_string();
        assert!(error.contains("name,seconds"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "name,seconds\n");
    }

    #[test]
    fn row_with_an_impossible_number_is_told_by_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
        for row in [row(1), row(2)] {
            writer.append(&row).unwrap();
        }
        let path = folder.path().join(ROWS);
        let text = std::fs::read_to_string(&path).unwrap();
        for corrupt in ["NaN", "inf", "-1e-5", "1e30"] {
            let at = text.rfind("0.0000125").unwrap();
            let (before, after) = text.split_at(at);
            std::fs::write(&path, format!("{before}{corrupt}{}", &after["0.0000125".len()..])).unwrap();
            let error = Dataset::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains("time_s is"), "{error}");
        }
    }

    #[test]
    fn committed_sets_are_read_whole() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/data");
        for (machine, least) in [("h200", 16_128), ("xeon-amx", 2_000)] {
            let set = Dataset::read(&data.join(machine)).unwrap();
            assert!(set.rows.len() >= least, "{machine}");
        }
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
