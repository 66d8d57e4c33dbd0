//! What survives a kill: after every block its tensors and the live activations, so that a resumed run ends with the
//! same bytes as an uninterrupted one.
//!
//! ```text
//! OUT.journal/manifest.json             what the run was asked to do; a journal of another run is refused
//!             block-0003.safetensors    the tensors of block 3
//!             residual-0003.f32         the calibration stream after block 3 (only the last two are kept)
//!             block-0003.json           lengths and checksums of the two, the report: written last, it makes the entry
//!             lock                      held by the run that writes here
//! ```
//! Every file is written under another name, synced and renamed. An entry whose files do not match their checksums
//! counts as not there, and the run goes back to the last block before it that is whole.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use dualgrain_format::checkpoint::{CheckpointError, TensorBytes, f32_bytes};
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use crate::error::QuantError;
use crate::options::JournalPolicy;
use crate::report::json::LinearReport;
use crate::run::block::QuantizedBlock;

/// Residual snapshots that are kept: one to go on from, one to go back to.
const KEPT_RESIDUALS: usize = 2;

/// What the run was asked to do.
const MANIFEST: &str = "manifest.json";

/// The file that a running process keeps locked.
const LOCK: &str = "lock";

/// What must be equal for a journal to be continued, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Names and values: the version, the options, the model's files, the calibration text.
    pub entries: Vec<(String, String)>,
}

/// The journal of a run.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// Locked as long as the journal is open; the system unlocks it when the process dies.
    _lock: File,
}

/// The commit record of a block.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    tensors: Seal,
    residual: Seal,
    /// Bits of the static key and value scales.
    cache_scales: Option<[u32; 2]>,
    reports: Vec<LinearReport>,
}

/// Length and checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    bytes: u64,
    crc32: u32,
}

/// What the journal still knows of a finished block; its tensors stay on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedBlock {
    /// Static scales of keys and values.
    pub cache_scales: Option<[f32; 2]>,
    /// The reports of its linears.
    pub reports: Vec<LinearReport>,
}

impl Journal {
    /// `OUT.journal` beside the output.
    pub fn path_for(out_dir: &Path) -> PathBuf {
        let mut name = out_dir.file_name().unwrap_or_default().to_os_string();
        name.push(".journal");
        out_dir.with_file_name(name)
    }

    /// Starts a journal at `dir`, or continues the one that is there.
    ///
    /// # Errors
    /// [`QuantError::JournalExists`] under [`JournalPolicy::Refuse`]; [`QuantError::JournalBusy`] while another process
    /// writes it; [`QuantError::JournalDiffers`] when it belongs to another run; an I/O error.
    pub fn open(dir: PathBuf, policy: JournalPolicy, identity: &Identity) -> Result<Self, QuantError> {
        if dir.exists() {
            check_is_journal(&dir)?;
            let lock = lock(&dir)?;
            let journal = Self { dir, _lock: lock };
            match policy {
                JournalPolicy::Refuse if journal.record_path(0).exists() => {
                    return Err(QuantError::JournalExists { path: journal.dir });
                }
                JournalPolicy::Resume if journal.manifest_matches(identity)? => return Ok(journal),
                // Without a finished block there is nothing to lose.
                JournalPolicy::Refuse | JournalPolicy::Resume | JournalPolicy::Restart => {
                    journal.remove_entries()?;
                }
            }
            journal.start(identity)
        } else {
            fs::create_dir_all(&dir).map_err(CheckpointError::io("create", &dir))?;
            let lock = lock(&dir)?;
            Self { dir, _lock: lock }.start(identity)
        }
    }

    fn start(self, identity: &Identity) -> Result<Self, QuantError> {
        let manifest = serde_json::to_vec_pretty(identity).map_err(std::io::Error::other);
        let path = self.dir.join(MANIFEST);
        let manifest = manifest.map_err(CheckpointError::io("write", &path))?;
        self.write_file(MANIFEST, [&manifest[..]])?;
        Ok(self)
    }

    /// Whether the journal belongs to this run; one that was killed before its manifest was whole holds nothing.
    fn manifest_matches(&self, identity: &Identity) -> Result<bool, QuantError> {
        let Some(theirs) = read_json::<Identity>(&self.dir.join(MANIFEST)) else {
            return Ok(false);
        };
        let differences = theirs.differences(identity);
        if differences.is_empty() {
            return Ok(true);
        }
        Err(QuantError::JournalDiffers {
            path: self.dir.clone(),
            differences: differences.join("; "),
        })
    }

    /// Where the journal lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The blocks that are finished and whole, from block 0 on, up to the last one whose residual is whole too.
    pub fn finished_blocks(&self, num_layers: usize) -> Vec<FinishedBlock> {
        let records: Vec<Record> = (0..num_layers)
            .map_while(|layer| self.whole_record(layer))
            .collect();
        let resumable = (0..records.len()).rev().find(|&layer| {
            let path = self.residual_path(layer);
            Seal::of_file(&path).is_ok_and(|seal| seal == records[layer].residual)
        });
        let count = resumable.map_or(0, |layer| layer + 1);
        let finished = |record: Record| FinishedBlock {
            cache_scales: record.cache_scales.map(|bits| bits.map(f32::from_bits)),
            reports: record.reports,
        };
        records.into_iter().take(count).map(finished).collect()
    }

    fn whole_record(&self, layer: usize) -> Option<Record> {
        let record = read_json::<Record>(&self.record_path(layer))?;
        let seal = Seal::of_file(&self.tensors_path(layer)).ok()?;
        (seal == record.tensors).then_some(record)
    }

    /// Enters a finished block; `residual` gives the rows of each window after it.
    ///
    /// # Errors
    /// The disk is full, or another I/O error.
    pub fn append(
        &self,
        layer: usize,
        block: &QuantizedBlock,
        num_windows: usize,
        mut residual: impl FnMut(usize) -> Result<Vec<f32>, QuantError>,
    ) -> Result<(), QuantError> {
        let tensors = self.write_file(
            &format!("block-{layer:04}.safetensors"),
            [&serialized(block)?[..]],
        )?;
        let mut file = self.start_file(&format!("residual-{layer:04}.f32"))?;
        for window in 0..num_windows {
            file.write(&f32_bytes(&residual(window)?))?;
        }
        let record = Record {
            tensors,
            residual: file.finish()?,
            cache_scales: block.cache_scales.map(|scales| scales.map(f32::to_bits)),
            reports: block.reports.clone(),
        };
        let name = format!("block-{layer:04}.json");
        let record = serde_json::to_vec(&record).map_err(std::io::Error::other);
        let record = record.map_err(CheckpointError::io("write", &self.dir.join(&name)))?;
        self.write_file(&name, [&record[..]])?;
        if let Some(old) = layer.checked_sub(KEPT_RESIDUALS) {
            // It may be gone already (a resumed run); a file too many harms nobody.
            let _ = fs::remove_file(self.residual_path(old));
        }
        Ok(())
    }

    /// The residual rows after `layer`, window by window.
    ///
    /// # Errors
    /// An I/O error.
    pub fn read_residual(
        &self,
        layer: usize,
        floats_per_window: usize,
        num_windows: usize,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), QuantError>,
    ) -> Result<(), QuantError> {
        let path = self.residual_path(layer);
        let mut file = File::open(&path).map_err(CheckpointError::io("open", &path))?;
        let mut bytes = vec![0; floats_per_window * size_of::<f32>()];
        for window in 0..num_windows {
            file.read_exact(&mut bytes)
                .map_err(CheckpointError::io("read", &path))?;
            let rows: Vec<f32> = bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            each(window, &rows)?;
        }
        Ok(())
    }

    /// The file with the tensors of a finished block.
    pub fn tensors_path(&self, layer: usize) -> PathBuf {
        self.dir.join(format!("block-{layer:04}.safetensors"))
    }

    fn record_path(&self, layer: usize) -> PathBuf {
        self.dir.join(format!("block-{layer:04}.json"))
    }

    fn residual_path(&self, layer: usize) -> PathBuf {
        self.dir.join(format!("residual-{layer:04}.f32"))
    }

    /// Removes the journal: the output is in place.
    ///
    /// # Errors
    /// An I/O error; a folder that is no journal is left alone.
    pub fn clear(self) -> Result<(), QuantError> {
        check_is_journal(&self.dir)?;
        fs::remove_dir_all(&self.dir).map_err(|e| CheckpointError::io("remove", &self.dir)(e).into())
    }

    /// Forgets an earlier run.
    fn remove_entries(&self) -> Result<(), QuantError> {
        for path in entries(&self.dir)? {
            if path.file_name() != Some(LOCK.as_ref()) {
                fs::remove_file(&path).map_err(CheckpointError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn write_file<'b>(
        &self,
        name: &str,
        parts: impl IntoIterator<Item = &'b [u8]>,
    ) -> Result<Seal, QuantError> {
        let mut file = self.start_file(name)?;
        for part in parts {
            file.write(part)?;
        }
        file.finish()
    }

    fn start_file(&self, name: &str) -> Result<SealedFile, QuantError> {
        let partial = self.dir.join(format!(".partial-{name}"));
        Ok(SealedFile {
            file: File::create(&partial).map_err(CheckpointError::io("create", &partial))?,
            target: self.dir.join(name),
            partial,
            hasher: crc32fast::Hasher::new(),
            bytes: 0,
            named: false,
        })
    }
}

impl Identity {
    /// What differs, in words.
    fn differences(&self, now: &Self) -> Vec<String> {
        let value = |entries: &[(String, String)], name: &str| {
            let found = entries.iter().find(|(other, _)| other == name);
            found.map_or("nothing".to_owned(), |(_, value)| format!("`{value}`"))
        };
        let mut names: Vec<&String> = self
            .entries
            .iter()
            .chain(&now.entries)
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        names.dedup();
        let differs = |name: &&String| value(&self.entries, name) != value(&now.entries, name);
        names
            .into_iter()
            .filter(differs)
            .map(|name| {
                format!(
                    "{name}: journal {}, now {}",
                    value(&self.entries, name),
                    value(&now.entries, name)
                )
            })
            .collect()
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, QuantError> {
    let found = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    found.map_err(|e| CheckpointError::io("look into", dir)(e).into())
}

/// Refuses a folder that holds anything a journal would not.
fn check_is_journal(dir: &Path) -> Result<(), QuantError> {
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let known = [LOCK, MANIFEST, "block-", "residual", "attended", ".partial-"];
        known.iter().any(|known| name.starts_with(known))
    };
    match entries(dir)?.into_iter().find(|path| !ours(path)) {
        Some(path) => Err(QuantError::NotAJournal { path }),
        None => Ok(()),
    }
}

fn lock(dir: &Path) -> Result<File, QuantError> {
    let path = dir.join(LOCK);
    let file = File::create(&path).map_err(CheckpointError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(QuantError::JournalBusy { path: dir.into() }),
        // Some network file systems cannot lock; the journal serves there as it did before there was a lock.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// A file that gets its name when it is whole and on disk.
struct SealedFile {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    hasher: crc32fast::Hasher,
    bytes: u64,
    named: bool,
}

impl Drop for SealedFile {
    /// A file that could not be finished (a full disk) gives its space back.
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

impl SealedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), QuantError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|e| CheckpointError::io("write", &self.partial)(e).into())
    }

    fn finish(mut self) -> Result<Seal, QuantError> {
        self.file
            .sync_all()
            .and_then(|()| fs::rename(&self.partial, &self.target))
            .map_err(CheckpointError::io("write", &self.target))?;
        self.named = true;
        Ok(Seal {
            bytes: self.bytes,
            crc32: self.hasher.clone().finalize(),
        })
    }
}

impl Seal {
    fn of_file(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
        Ok(Self {
            bytes,
            crc32: hasher.finalize(),
        })
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn serialized(block: &QuantizedBlock) -> Result<Vec<u8>, QuantError> {
    let views = block.tensors.iter().map(|(spec, bytes): &TensorBytes| {
        TensorView::new(spec.dtype, spec.shape.clone(), bytes).map(|view| (spec.name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>();
    let bytes = views.and_then(|views| safetensors::serialize(views, None));
    bytes.map_err(|e| {
        CheckpointError::Tensor {
            name: "(journal)".into(),
            problem: e.to_string(),
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    use dualgrain_format::checkpoint::{Dtype, TensorSpec};

    use super::*;

    fn identity(group_size: &str) -> Identity {
        let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Identity {
            entries: vec![entry("group size", group_size), entry("search", "rtn")],
        }
    }

    fn block(value: u8) -> QuantizedBlock {
        let spec = TensorSpec {
            name: "x.q".into(),
            dtype: Dtype::U8,
            shape: vec![3],
        };
        QuantizedBlock {
            tensors: vec![(spec, vec![value; 3])],
            cache_scales: Some([0.1, 0.3]),
            reports: Vec::new(),
        }
    }

    fn journal_of(dir: &Path, blocks: usize) -> Journal {
        let journal =
            Journal::open(dir.join("out.journal"), JournalPolicy::Refuse, &identity("128")).unwrap();
        for layer in 0..blocks {
            journal
                .append(layer, &block(layer as u8), 2, |window| {
                    Ok(vec![layer as f32, window as f32])
                })
                .unwrap();
        }
        journal
    }

    #[test]
    fn finished_blocks_and_activations_come_back() {
        let dir = tempfile::tempdir().unwrap();
        journal_of(dir.path(), 3);
        let journal = Journal::open(
            dir.path().join("out.journal"),
            JournalPolicy::Resume,
            &identity("128"),
        )
        .unwrap();
        let finished = journal.finished_blocks(5);
        assert_eq!(finished.len(), 3);
        assert_eq!(finished[1].cache_scales, Some([0.1, 0.3]));
        let mut rows = Vec::new();
        journal
            .read_residual(2, 2, 2, |_, window| {
                rows.extend_from_slice(window);
                Ok(())
            })
            .unwrap();
        assert_eq!(rows, [2.0, 0.0, 2.0, 1.0]);
        assert!(!journal.residual_path(0).exists(), "old activations are removed");
    }

    #[test]
    fn an_entry_that_cannot_be_finished_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal_of(dir.path(), 1);
        let failed = journal.append(1, &block(1), 2, |_| Err(QuantError::NoCalibration));
        assert!(failed.is_err());
        let partial = fs::read_dir(journal.dir()).unwrap();
        let left = partial.filter(|entry| {
            entry
                .as_ref()
                .is_ok_and(|e| e.file_name().to_string_lossy().starts_with('.'))
        });
        assert_eq!(left.count(), 0);
        assert_eq!(journal.finished_blocks(2).len(), 1);
    }

    #[test]
    fn another_runs_journal_is_refused_with_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let path = journal_of(dir.path(), 1).dir().to_path_buf();
        let error = Journal::open(path.clone(), JournalPolicy::Resume, &identity("64"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("group size: journal `128`, now `64`"), "{error}");
        assert!(!error.contains("rtn"), "{error}");
        let refused = Journal::open(path.clone(), JournalPolicy::Refuse, &identity("128"));
        assert!(matches!(refused, Err(QuantError::JournalExists { .. })));
        let anew = Journal::open(path, JournalPolicy::Restart, &identity("64")).unwrap();
        assert!(anew.finished_blocks(3).is_empty());
    }

    #[test]
    fn a_damaged_entry_sends_the_run_back_to_the_last_whole_one() {
        for damaged in ["residual-0002.f32", "block-0002.safetensors", "block-0002.json"] {
            let dir = tempfile::tempdir().unwrap();
            let journal = journal_of(dir.path(), 3);
            let path = journal.dir().join(damaged);
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(bytes.len() - 1);
            fs::write(&path, bytes).unwrap();
            assert_eq!(journal.finished_blocks(3).len(), 2, "{damaged}");
        }
        let dir = tempfile::tempdir().unwrap();
        let journal = journal_of(dir.path(), 3);
        fs::write(journal.tensors_path(0), b"???").unwrap();
        assert!(journal.finished_blocks(3).is_empty());
    }

    #[test]
    fn two_runs_never_write_one_journal() {
        let dir = tempfile::tempdir().unwrap();
        let first = journal_of(dir.path(), 1);
        for policy in [JournalPolicy::Resume, JournalPolicy::Restart] {
            let second = Journal::open(first.dir().to_path_buf(), policy, &identity("128"));
            assert!(matches!(second, Err(QuantError::JournalBusy { .. })));
        }
        assert_eq!(first.finished_blocks(1).len(), 1);
        let path = first.dir().to_path_buf();
        drop(first);
        let third = Journal::open(path, JournalPolicy::Resume, &identity("128")).unwrap();
        assert_eq!(third.finished_blocks(1).len(), 1);
    }

    #[test]
    fn a_folder_that_is_no_journal_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.journal");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("thesis.txt"), "x").unwrap();
        let error = Journal::open(path.clone(), JournalPolicy::Restart, &identity("128"));
        assert!(matches!(error, Err(QuantError::NotAJournal { .. })));
        let left: Vec<_> = fs::read_dir(&path).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing removed, nothing added");
    }
}
