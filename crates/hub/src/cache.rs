//! The cache that all programs of the hub share, as its library in Python lays it out:
//!
//! ```text
//! models--ORG--NAME/blobs/CHECKSUM               contents; CHECKSUM.incomplete while they come
//! models--ORG--NAME/refs/REVISION                the commit that a branch or tag was last seen at
//! models--ORG--NAME/snapshots/COMMIT/FILE        a link to a content
//! .locks/models--ORG--NAME/CHECKSUM.lock         held while a content comes
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dualgrain_format::checkpoint::{INDEX, SINGLE, part_of_set};

use crate::checksum::Checksum;
use crate::error::HubError;
use crate::listing::{CONFIG, TOKENIZER, shards_of_index};
use crate::model_name::{ModelName, Revision, is_commit};

/// A model's place in a cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    folder: String,
}

impl Cache {
    /// The place of the model `name` in the cache at `root`.
    pub fn of(root: &Path, name: &ModelName) -> Self {
        Self {
            root: root.to_path_buf(),
            folder: name.folder(),
        }
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join(&self.folder).join("snapshots").join(commit)
    }

    /// The content with a checksum.
    pub fn blob(&self, checksum: &Checksum) -> PathBuf {
        self.root.join(&self.folder).join("blobs").join(checksum.text())
    }

    /// What of a content has come so far.
    pub fn part(&self, checksum: &Checksum) -> PathBuf {
        self.blob(checksum).with_extension("incomplete")
    }

    /// The same for one pull alone, which no other goes on with.
    pub fn own_part(&self, checksum: &Checksum) -> PathBuf {
        aside(&self.part(checksum))
    }

    /// The lock of a content, which one program holds while it comes.
    ///
    /// # Errors
    /// It can not be made.
    pub fn lock(&self, checksum: &Checksum) -> Result<fs::File, HubError> {
        let path = self.root.join(".locks").join(&self.folder);
        let path = path.join(format!("{checksum}.lock"));
        make_folder_of(&path)?;
        let options = fs::File::options().create(true).append(true).open(&path);
        options.map_err(HubError::io("opening the lock", &path))
    }

    /// The commit of a revision, and the folder with its model, where all of it is there.
    pub fn find(&self, revision: &Revision) -> Option<(String, PathBuf)> {
        let commit = match revision.is_commit() {
            true => revision.as_str().to_owned(),
            false => fs::read_to_string(self.reference(revision))
                .ok()?
                .trim()
                .to_owned(),
        };
        let dir = self.snapshot(&commit);
        (is_commit(&commit) && is_whole(&dir)).then_some((commit, dir))
    }

    /// Keeps which commit a branch or tag was seen at.
    ///
    /// # Errors
    /// It can not be written.
    pub fn refer(&self, revision: &Revision, commit: &str) -> Result<(), HubError> {
        if revision.is_commit() {
            return Ok(());
        }
        let path = self.reference(revision);
        make_folder_of(&path)?;
        let aside = aside(&path);
        let written = fs::write(&aside, commit).and_then(|()| fs::rename(&aside, &path));
        written.map_err(HubError::io("writing", &path))
    }

    /// Puts a file of a commit at its place: a link to its content.
    ///
    /// # Errors
    /// It can not be made.
    pub fn link(&self, commit: &str, file: &str, checksum: &Checksum) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{checksum}"));
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(());
        }
        make_folder_of(&path)?;
        let aside = aside(&path);
        let linked = link(&target, &self.blob(checksum), &aside).and_then(|()| fs::rename(&aside, &path));
        linked.map_err(HubError::io("linking", &path))
    }

    fn reference(&self, revision: &Revision) -> PathBuf {
        self.root.join(&self.folder).join("refs").join(revision.as_str())
    }
}

/// Whether a folder holds a model with its tokenizer and all its weights. Other programs leave folders with some of these.
fn is_whole(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    let shards = || -> Option<BTreeSet<String>> { shards_of_index(&fs::read(dir.join(INDEX)).ok()?).ok() };
    let has_weights = || match has(INDEX) {
        true => shards().is_some_and(|shards| shards.iter().all(|shard| has(shard))),
        false => has_set_of_safetensors(dir),
    };
    has(CONFIG) && has(TOKENIZER) && (has(SINGLE) || has_weights())
}

/// Whether there are safetensors, and of those that are numbered (`-00001-of-00003`) as many as they say.
fn has_set_of_safetensors(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    let count_of = |name: &String| part_of_set(name).map(|(_, _, count)| count);
    let is_complete = |name: &String| match count_of(name) {
        None => true,
        Some(count) => {
            names
                .iter()
                .filter(|other| count_of(other) == Some(count))
                .count()
                >= count
        }
    };
    !names.is_empty() && names.iter().all(is_complete)
}

/// Makes the folder that `path` lies in.
///
/// # Errors
/// It can not be made.
pub fn make_folder_of(path: &Path) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(HubError::io("making the folder", folder))
}

/// A name beside `path` that no other program, and no other pull of this one, uses at the same time.
fn aside(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{number}", std::process::id()));
    let aside = path.with_file_name(name);
    // Left by a program that was killed and had the same number.
    let _ = fs::remove_file(&aside);
    aside
}

#[cfg(unix)]
fn link(target: &Path, _: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need rights there that users seldom have.
#[cfg(not(unix))]
fn link(_: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path)
}
