//! A folder that appears whole or not at all.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::linear::linear_tensors;
use crate::checkpoint::writer::{SHARD_BYTES, TensorSpec, TensorsWriter, tensor_error};
use crate::linear::weights::LinearWeights;

/// Writes a model folder beside its target and renames it when it is complete; dropping it unfinished removes it.
///
/// A process that is killed leaves `.NAME.partial-PID` behind: hidden, and without the target's name, so no program
/// takes it for a model. The next writer to the same target removes it.
#[derive(Debug)]
pub struct FolderWriter {
    target: PathBuf,
    partial: PathBuf,
    /// Where an existing target waits until the new one is in place.
    replaced: PathBuf,
    replace: bool,
    shard_bytes: u64,
    tensors: Option<TensorsWriter>,
    /// Held on `partial` as long as this process lives: what is not locked has been left by a dead one.
    _lock: Option<fs::File>,
}

impl FolderWriter {
    /// Starts `.NAME.partial-PID` beside `target`.
    ///
    /// # Errors
    /// `target` exists and is not empty (with `replace`: is not a model folder), or the folder can not be made.
    pub fn create(target: &Path, replace: bool) -> Result<Self, CheckpointError> {
        check_target(target, replace)?;
        let sibling = |kind: &str| sibling(target, kind);
        let (partial, replaced) = (sibling("partial")?, sibling("replaced")?);
        let parent = parent(target);
        fs::create_dir_all(parent).map_err(CheckpointError::io("create", parent))?;
        remove_abandoned(parent, target);
        fs::create_dir(&partial).map_err(CheckpointError::io("create", &partial))?;
        Ok(Self {
            target: target.to_path_buf(),
            _lock: lock(&partial),
            partial,
            replaced,
            replace,
            shard_bytes: SHARD_BYTES,
            tensors: None,
        })
    }

    /// Files of at most `bytes` instead of 5 GB.
    #[must_use]
    pub fn with_shard_bytes(mut self, bytes: u64) -> Self {
        self.shard_bytes = bytes;
        self
    }

    /// Where files are written until [`Self::commit`].
    pub fn partial_path(&self) -> &Path {
        &self.partial
    }

    /// Writes one file (config.json, tokenizer.json, a report) and syncs it.
    ///
    /// # Errors
    /// The file can not be written, or `name` is not a plain file name.
    pub fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let path = self.partial.join(name);
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name");
            return Err(CheckpointError::io("write", &path)(error));
        }
        fs::write(&path, bytes)
            .and_then(|()| fs::File::open(&path)?.sync_all())
            .map_err(CheckpointError::io("write", &path))
    }

    /// Announces all tensors and starts their files: `model.safetensors`, or shards of at most 5 GB with
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// A name twice, sizes that overflow, or a file that can not be made.
    pub fn start_tensors(&mut self, specs: Vec<TensorSpec>) -> Result<(), CheckpointError> {
        self.tensors = Some(TensorsWriter::create(&self.partial, specs, self.shard_bytes)?);
        Ok(())
    }

    /// Writes the bytes of one announced tensor, little endian. Tensors may come in any order.
    ///
    /// # Errors
    /// A tensor not announced or written before, a different number of bytes, or an I/O error.
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        match &mut self.tensors {
            Some(tensors) => tensors.write(name, bytes),
            None => Err(tensor_error(name, "was not announced".into())),
        }
    }

    /// Writes all tensors of linear `name` (see [`crate::checkpoint::LinearLayout`] for announcing them).
    ///
    /// # Errors
    /// As [`Self::write_tensor`].
    pub fn write_linear(&mut self, name: &str, linear: &LinearWeights) -> Result<(), CheckpointError> {
        linear_tensors(name, linear)
            .into_iter()
            .try_for_each(|(spec, bytes)| self.write_tensor(&spec.name, &bytes))
    }

    /// Syncs everything and puts the folder in place; what it replaces is removed only afterwards.
    ///
    /// # Errors
    /// A tensor announced but never written, or an I/O error; the target is then what it was before.
    pub fn commit(mut self) -> Result<(), CheckpointError> {
        if let Some(index) = self
            .tensors
            .take()
            .map(TensorsWriter::finish)
            .transpose()?
            .flatten()
        {
            self.write_file("model.safetensors.index.json", &index)?;
        }
        sync_dir(&self.partial)?;
        check_target(&self.target, self.replace)?;
        self.put_in_place()?;
        sync_dir(parent(&self.target))?;
        [&self.partial, &self.replaced]
            .into_iter()
            .try_for_each(|old| remove_if_there(old).map_err(CheckpointError::io("remove", old)))
    }

    /// At every moment the target is the old folder or the new one where the system can exchange names; elsewhere the
    /// old one is moved aside first.
    fn put_in_place(&self) -> Result<(), CheckpointError> {
        let replaces = self.replace && self.target.exists();
        if replaces && exchange(&self.partial, &self.target) {
            return Ok(());
        }
        if replaces {
            rename(&self.target, &self.replaced)?;
        }
        if let Err(error) = rename(&self.partial, &self.target) {
            if replaces {
                rename(&self.replaced, &self.target)?;
            }
            return Err(error);
        }
        Ok(())
    }
}

impl Drop for FolderWriter {
    /// Removes an unfinished folder; after [`FolderWriter::commit`] there is none.
    fn drop(&mut self) {
        self.tensors = None;
        // A destructor has nobody to report to; what stays is hidden and named `.partial-`.
        let _ = remove_if_there(&self.partial);
    }
}

fn check_target(target: &Path, replace: bool) -> Result<(), CheckpointError> {
    let path = target.to_path_buf();
    let mut entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(CheckpointError::TargetNoFolder { path });
        }
        Err(error) => return Err(CheckpointError::io("look into", target)(error)),
    };
    match (entries.next().is_some(), replace) {
        (false, _) => Ok(()),
        (true, false) => Err(CheckpointError::TargetExists { path }),
        // A slip of the hand must not cost somebody's home folder.
        (true, true) if !target.join("config.json").exists() => Err(CheckpointError::TargetNoModel { path }),
        (true, true) => Ok(()),
    }
}

fn sibling(target: &Path, kind: &str) -> Result<PathBuf, CheckpointError> {
    match target.file_name() {
        Some(name) => {
            let name = format!(".{}.{kind}-{}", name.to_string_lossy(), std::process::id());
            Ok(target.with_file_name(name))
        }
        None => Err(CheckpointError::TargetName {
            path: target.to_path_buf(),
        }),
    }
}

/// Removes the unfinished folders of dead processes; whatever cannot be opened, locked or removed stays, since it
/// costs disk space only.
fn remove_abandoned(parent: &Path, target: &Path) {
    let Some(name) = target.file_name() else { return };
    let prefix = format!(".{}.partial-", name.to_string_lossy());
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(&prefix);
        if ours && let Some(_lock) = lock(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// An exclusive lock on a folder; `None` when another process has it or the system cannot lock folders.
fn lock(dir: &Path) -> Option<fs::File> {
    let dir = fs::File::open(dir).ok()?;
    dir.try_lock().ok()?;
    Some(dir)
}

/// The folder that holds `target`: the current one for a bare name.
fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Swaps two folders in one step; false when the system or the file system has no such step.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
}

fn rename(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    fs::rename(from, to).map_err(CheckpointError::io("put the folder in place as", to))
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes renames and new names inside `dir` survive a power cut; systems that cannot open folders skip it.
fn sync_dir(dir: &Path) -> Result<(), CheckpointError> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(CheckpointError::io("finish writing", dir))
}
