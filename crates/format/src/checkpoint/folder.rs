//! A folder that appears whole or not at all.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::linear::linear_tensors;
use crate::checkpoint::names::{MODEL_FILES, TEMPLATES, templates_in};
use crate::checkpoint::place::{OutputPlace, PARTIAL_INSIDE, parent};
use crate::checkpoint::writer::{SHARD_BYTES, TensorSpec, TensorsWriter, tensor_error};
use crate::linear::weights::LinearWeights;

/// The file without which a folder is no model.
const CONFIG: &str = "config.json";

/// Writes a model folder beside its target and renames it when it is complete; dropping it unfinished removes it.
///
/// A process that is killed leaves `.NAME.partial-PID` behind: hidden, and without the target's name, so no program
/// takes it for a model. The next writer to the same target removes it.
#[derive(Debug)]
pub struct FolderWriter {
    place: OutputPlace,
    partial: PathBuf,
    /// Where an existing target waits until the new one is in place.
    replaced: PathBuf,
    replace: bool,
    shard_bytes: u64,
    tensors: Option<TensorsWriter>,
    /// Whether files are leaving `partial` one by one.
    is_moving: bool,
    /// Held on `partial` as long as this process lives: what is not locked has been left by a dead one.
    _lock: Option<fs::File>,
}

impl FolderWriter {
    /// Starts `.NAME.partial-PID` beside `target`, or inside it where it can not be renamed ([`OutputPlace`]).
    ///
    /// # Errors
    /// `target` exists and is not empty (with `replace`: is not a model folder), or the folder can not be made.
    pub fn create(target: &Path, replace: bool) -> Result<Self, CheckpointError> {
        Self::at(OutputPlace::of(target)?, replace)
    }

    fn at(place: OutputPlace, replace: bool) -> Result<Self, CheckpointError> {
        place.check_empty(replace)?;
        let target = place.target();
        let (partial, replaced) = match place.is_inside() {
            true => (
                target.join(format!("{PARTIAL_INSIDE}{}", std::process::id())),
                target.to_path_buf(),
            ),
            false => (sibling(target, "partial")?, sibling(target, "replaced")?),
        };
        let parent = parent(&partial);
        fs::create_dir_all(parent).map_err(CheckpointError::io("create", parent))?;
        remove_abandoned(&partial);
        fs::create_dir(&partial).map_err(CheckpointError::io("create", &partial))?;
        Ok(Self {
            place,
            _lock: lock(&partial),
            partial,
            replaced,
            replace,
            shard_bytes: SHARD_BYTES,
            tensors: None,
            is_moving: false,
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
        self.write_at(&self.partial.join(name), &[name], bytes)
    }

    /// As [`Self::write_file`], in a folder inside.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn write_file_in(&mut self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let dir = self.partial.join(folder);
        if is_plain(folder) {
            fs::create_dir_all(&dir).map_err(CheckpointError::io("create", &dir))?;
        }
        self.write_at(&dir.join(name), &[folder, name], bytes)
    }

    /// Writes the files of the model in `dir` that go along unchanged: tokenizer, templates, generation settings, licence.
    ///
    /// # Errors
    /// A file that can not be read or written.
    pub fn copy_model_files(&mut self, dir: &Path) -> Result<(), CheckpointError> {
        let read = |path: &Path| fs::read(path).map_err(CheckpointError::io("read", path));
        for name in MODEL_FILES {
            let path = dir.join(name);
            if path.is_file() {
                self.write_file(name, &read(&path)?)?;
            }
        }
        for path in templates_in(&dir.join(TEMPLATES)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.write_file_in(TEMPLATES, &name, &read(&path)?)?;
        }
        Ok(())
    }

    fn write_at(&self, path: &Path, names: &[&str], bytes: &[u8]) -> Result<(), CheckpointError> {
        if !names.iter().all(|name| is_plain(name)) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name");
            return Err(CheckpointError::io("write", path)(error));
        }
        fs::write(path, bytes)
            .and_then(|()| fs::File::open(path)?.sync_all())
            .map_err(CheckpointError::io("write", path))
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
    /// A tensor announced but never written, or an I/O error; the target is then what it was before. On a mount point, where files
    /// are moved up one by one, an error in between leaves the target without config.json and what was not moved in `.partial-PID`.
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
        self.place.check_empty(self.replace)?;
        if self.place.is_inside() {
            return self.move_up();
        }
        self.put_in_place()?;
        sync_dir(parent(self.place.target()))?;
        [&self.partial, &self.replaced]
            .into_iter()
            .try_for_each(|old| remove_if_there(old).map_err(CheckpointError::io("remove", old)))
    }

    /// Moves every file from inside the target to its place. config.json is what makes a folder a model: an old one goes first, the new
    /// one comes last, so a folder that is cut off here is none.
    fn move_up(&mut self) -> Result<(), CheckpointError> {
        let target = self.place.target();
        let config = Path::new(CONFIG);
        let remove = |name: &Path| {
            let path = target.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(CheckpointError::io("remove", &path))
        };
        let is_ours = |name: &PathBuf| self.place.is_ours(&name.to_string_lossy());
        let old = names(target)?.into_iter().filter(|name| !is_ours(name));
        let (old_config, others): (Vec<_>, Vec<_>) = old.partition(|name| name == config);
        old_config
            .iter()
            .chain(&others)
            .try_for_each(|name| remove(name))?;
        let (new_config, new): (Vec<_>, Vec<_>) =
            names(&self.partial)?.into_iter().partition(|name| name == config);
        self.is_moving = true;
        for name in new.iter().chain(&new_config) {
            rename(&self.partial.join(name), &target.join(name))?;
        }
        sync_dir(target)?;
        remove_if_there(&self.partial).map_err(CheckpointError::io("remove", &self.partial))
    }

    /// At every moment the target is the old folder or the new one where the system can exchange names; elsewhere the
    /// old one is moved aside first.
    fn put_in_place(&self) -> Result<(), CheckpointError> {
        let target = self.place.target();
        let replaces = self.replace && target.exists();
        if replaces && exchange(&self.partial, target) {
            return Ok(());
        }
        if replaces {
            rename(target, &self.replaced)?;
        }
        if let Err(error) = rename(&self.partial, target) {
            if replaces {
                rename(&self.replaced, target)?;
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
        // Once files are being moved up, what was not moved yet is all that is left of them.
        if self.is_moving {
            return;
        }
        // A destructor has nobody to report to; what stays is hidden and named `.partial-`.
        let _ = remove_if_there(&self.partial);
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
fn remove_abandoned(partial: &Path) {
    let name = partial.file_name().unwrap_or_default().to_string_lossy();
    let Some(prefix) = name.strip_suffix(&std::process::id().to_string()) else {
        return;
    };
    for entry in fs::read_dir(parent(partial)).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(prefix);
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

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

/// Names in a folder, in order.
fn names(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let entries = fs::read_dir(dir).map_err(CheckpointError::io("look into", dir))?;
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.file_name().into()).collect();
    names.sort();
    Ok(names)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, content: &str, replace: bool) -> Result<FolderWriter, CheckpointError> {
        let mut writer = FolderWriter::at(OutputPlace::inside(target), replace)?;
        writer.write_file(CONFIG, content.as_bytes())?;
        writer.write_file_in("templates", "a.jinja", content.as_bytes())?;
        Ok(writer)
    }

    #[test]
    fn a_folder_can_be_built_inside_its_target() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".journal")).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let unfinished = write(dir.path(), "1", false).unwrap();
        assert!(!dir.path().join(CONFIG).exists());
        drop(unfinished);
        assert_eq!(names(dir.path()).unwrap(), [Path::new(".journal")]);
        write(dir.path(), "1", false).unwrap().commit().unwrap();
        assert_eq!(read(CONFIG), "1");
        let refused = write(dir.path(), "2", false).unwrap_err().to_string();
        assert!(refused.contains("already exists"), "{refused}");
        write(dir.path(), "2", true).unwrap().commit().unwrap();
        assert_eq!(
            (read(CONFIG), read("templates/a.jinja")),
            ("2".to_owned(), "2".to_owned())
        );
        let left = names(dir.path()).unwrap();
        assert_eq!(left, [".journal", CONFIG, "templates"].map(PathBuf::from));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = FolderWriter::create(&dir.path().join("model"), false).unwrap();
        for (folder, name) in [("..", "a"), ("a", "../b"), ("a/b", "c"), ("a", "")] {
            assert!(
                writer.write_file_in(folder, name, b"").is_err(),
                "{folder} {name}"
            );
        }
    }
}
