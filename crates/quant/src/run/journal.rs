//! What survives a kill: after every block its tensors and the live activations, so that a resumed run ends with the
//! same bytes as an uninterrupted one.
//!
//! ```text
//! OUT.journal/manifest.json             what the run was asked to do; a journal of another run is refused
//!             block-0003.safetensors    the tensors of block 3
//!             residual-0003.f32         the hidden states after block 3 (only the last two are kept)
//!             block-0003.json           lengths and checksums of the two, the report: written last, it makes the entry
//!             choice.json               the schemes that a budget of bits was spent on
//!             lock                      held by the run that writes here
//! ```
//! Every file is written under another name, synced and renamed. An entry whose files do not match their checksums
//! counts as not there, and the run goes back to the last block before it that is whole.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use dualgrain_format::checkpoint::{CheckpointError, TensorBytes, f32_bytes};
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use crate::budget::choice::Choice;
use crate::error::QuantError;
use crate::options::JournalPolicy;
use crate::report::json::LinearReport;
use crate::run::block::quantized_block::QuantizedBlock;
use crate::run::identity::Identity;
use crate::run::sealed_file::{PARTIAL, Seal, SealedFile};

/// Residual snapshots that are kept: one to go on from, one to go back to.
const KEPT_RESIDUALS: usize = 2;

/// What the run was asked to do.
const MANIFEST: &str = "manifest.json";

/// The schemes under a budget.
const CHOICE: &str = "choice.json";

/// The file that a running process keeps locked.
const LOCK: &str = "lock";

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

/// What the journal still knows of a finished block; its tensors stay on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedBlock {
    /// Static scales of keys and values.
    pub cache_scales: Option<[f32; 2]>,
    /// The reports of its linears.
    pub reports: Vec<LinearReport>,
}

impl Journal {
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

    /// Refuses a journal with finished blocks where nothing was said of it; nothing is changed.
    ///
    /// # Errors
    /// [`QuantError::JournalExists`].
    pub fn check_unused(dir: &Path, policy: JournalPolicy) -> Result<(), QuantError> {
        match policy == JournalPolicy::Refuse && record_path(dir, 0).exists() {
            true => Err(QuantError::JournalExists { path: dir.into() }),
            false => Ok(()),
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
        let mut file = SealedFile::create(&self.dir, &format!("residual-{layer:04}.f32"))?;
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

    /// The schemes that were chosen under a budget, if the journal has them.
    pub fn choice(&self) -> Option<Choice> {
        read_json(&self.dir.join(CHOICE))
    }

    /// Keeps the schemes that were chosen under a budget.
    ///
    /// # Errors
    /// The disk is full, or another I/O error.
    pub fn keep_choice(&self, choice: &Choice) -> Result<(), QuantError> {
        let bytes = serde_json::to_vec(choice).map_err(std::io::Error::other);
        let bytes = bytes.map_err(CheckpointError::io("write", &self.dir.join(CHOICE)))?;
        self.write_file(CHOICE, [&bytes[..]]).map(drop)
    }

    /// The file with the tensors of a finished block.
    pub fn tensors_path(&self, layer: usize) -> PathBuf {
        self.dir.join(format!("block-{layer:04}.safetensors"))
    }

    fn record_path(&self, layer: usize) -> PathBuf {
        record_path(&self.dir, layer)
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
        let mut file = SealedFile::create(&self.dir, name)?;
        for part in parts {
            file.write(part)?;
        }
        file.finish()
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
        let known = [LOCK, MANIFEST, CHOICE, "block-", "residual", "attended", PARTIAL];
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

fn record_path(dir: &Path, layer: usize) -> PathBuf {
    dir.join(format!("block-{layer:04}.json"))
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
mod tests;
