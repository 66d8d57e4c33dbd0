//! Where an output folder comes to lie: through links, on mount points, on which disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::error::CheckpointError;

/// The place of an output folder.
///
/// As a rule a folder is built beside its target and renamed. That can not be done onto a mount point (a container's volume), nor
/// where the folder above may not be written: there it is built inside the target, and its files are moved up when all are complete,
/// config.json last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPlace {
    target: PathBuf,
    is_inside: bool,
}

/// The journal's name inside a target.
const JOURNAL: &str = ".journal";
/// What unfinished folders inside a target begin with.
pub(crate) const PARTIAL_INSIDE: &str = ".partial-";
/// What file systems put into the roots of disks.
const OF_DISKS: &str = "lost+found";

impl OutputPlace {
    /// The place of the folder `target`; a link to a folder stands for that folder.
    ///
    /// # Errors
    /// A link to nothing, or in a circle.
    pub fn of(target: &Path) -> Result<Self, CheckpointError> {
        let is_link = fs::symlink_metadata(target).is_ok_and(|metadata| metadata.is_symlink());
        let target = match is_link {
            true => fs::canonicalize(target).map_err(CheckpointError::io("follow the link", target))?,
            false => target.to_path_buf(),
        };
        let is_inside = target.is_dir() && (is_mount_point(&target) || !can_write(parent(&target)));
        Ok(Self { target, is_inside })
    }

    /// As a mount point would be.
    #[cfg(test)]
    pub(crate) fn inside(target: &Path) -> Self {
        Self {
            target: target.to_path_buf(),
            is_inside: true,
        }
    }

    /// The folder itself, not a link to it.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Whether the folder is built inside the target instead of beside it.
    pub fn is_inside(&self) -> bool {
        self.is_inside
    }

    /// Where what survives a kill lies until the folder is whole: `TARGET.journal`, or inside a target that is kept where others are not.
    pub fn journal(&self) -> PathBuf {
        if self.is_inside {
            return self.target.join(JOURNAL);
        }
        let mut name = self.target.file_name().unwrap_or_default().to_os_string();
        name.push(".journal");
        self.target.with_file_name(name)
    }

    /// Whether an entry of the target is none of a model's: left by a run that goes on there, or by the file system.
    pub fn is_ours(&self, name: &str) -> bool {
        self.is_inside && (name == JOURNAL || name == OF_DISKS || name.starts_with(PARTIAL_INSIDE))
    }

    /// Refuses what can be known beforehand to fail, and writes nothing: a target that holds something (with `replace`: no model), that
    /// is no folder, or whose disk can not be written.
    ///
    /// # Errors
    /// Which of these.
    pub fn check(&self, replace: bool) -> Result<(), CheckpointError> {
        self.check_empty(replace)?;
        let place = if self.is_inside {
            &self.target
        } else {
            parent(&self.target)
        };
        let there = existing(place);
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        match (there.is_dir(), can_write(there)) {
            (false, _) => Err(CheckpointError::TargetNoFolder {
                path: self.target.clone(),
            }),
            (true, false) => Err(CheckpointError::io("write into", there)(denied())),
            (true, true) if self.target.file_name().is_none() && !self.is_inside => {
                Err(CheckpointError::TargetName {
                    path: self.target.clone(),
                })
            }
            (true, true) => Ok(()),
        }
    }

    /// The target holds nothing, or with `replace` a model.
    pub(crate) fn check_empty(&self, replace: bool) -> Result<(), CheckpointError> {
        let path = self.target.clone();
        let entries = match fs::read_dir(&self.target) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(CheckpointError::TargetNoFolder { path });
            }
            Err(error) => return Err(CheckpointError::io("look into", &self.target)(error)),
        };
        let mut names = entries.flatten().map(|entry| entry.file_name());
        let holds_others = names.any(|name| !self.is_ours(&name.to_string_lossy()));
        match (holds_others, replace) {
            (false, _) => Ok(()),
            (true, false) => Err(CheckpointError::TargetExists { path }),
            // A slip of the hand must not cost somebody's home folder.
            (true, true) if !self.target.join("config.json").exists() => {
                Err(CheckpointError::TargetNoModel { path })
            }
            (true, true) => Ok(()),
        }
    }

    /// Free bytes on the target's disk for this user; `None` where the system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.target)
    }
}

/// The folder that holds `target`: the current one for a bare name.
pub(crate) fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The nearest folder above that is there.
fn existing(path: &Path) -> &Path {
    let mut path = path;
    while fs::symlink_metadata(path).is_err() && path != Path::new(".") && path.parent().is_some() {
        path = parent(path);
    }
    path
}

#[cfg(unix)]
fn can_write(dir: &Path) -> bool {
    rustix::fs::access(existing(dir), rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn can_write(_: &Path) -> bool {
    true
}

/// Free bytes on the disk that `path` lies on, or will, for this user; `None` where the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    free_bytes_at(existing(path))
}

#[cfg(unix)]
fn free_bytes_at(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes_at(_: &Path) -> Option<u64> {
    None
}

/// Whether another file system begins at a folder, or the system lists it (a mount of a folder of the same file system).
#[cfg(unix)]
fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(whole) = fs::canonicalize(dir) else {
        return false;
    };
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    let listed = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    whole.parent().is_none_or(|above| device(above) != device(&whole)) || lists(&listed, &whole)
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// Whether the fifth word of a line is the path; a space is written `\040`, a tab `\011`.
#[cfg(unix)]
fn lists(mounts: &str, path: &Path) -> bool {
    let written = path
        .to_string_lossy()
        .replace('\\', "\\134")
        .replace(' ', "\\040");
    let written = written.replace('\t', "\\011").replace('\n', "\\012");
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(written.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn links_stand_for_their_folders_and_mounts_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("big")).unwrap();
        std::os::unix::fs::symlink("big", base.join("out")).unwrap();
        std::os::unix::fs::symlink("nowhere", base.join("dangling")).unwrap();
        let place = OutputPlace::of(&base.join("out")).unwrap();
        assert_eq!(place.target(), base.join("big"));
        assert_eq!(place.journal(), base.join("big.journal"));
        assert!(!place.is_inside() && place.check(false).is_ok());
        let error = OutputPlace::of(&base.join("dangling")).unwrap_err().to_string();
        assert!(
            error.contains("follow the link") && error.contains("dangling"),
            "{error}"
        );
        assert!(OutputPlace::of(Path::new("/proc")).unwrap().is_inside());
        let mounts = "36 35 98:0 /a /mnt/with\\040space rw - ext4 /dev/sda rw\n";
        assert!(lists(mounts, Path::new("/mnt/with space")) && !lists(mounts, Path::new("/mnt")));
        assert!(place.free_bytes().is_some_and(|free| free > 0));
    }

    #[test]
    fn what_can_not_be_an_output_is_known_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let check = |path: PathBuf| OutputPlace::of(&path).and_then(|place| place.check(false));
        assert!(check(dir.path().join("a/b/c")).is_ok());
        assert!(!dir.path().join("a").exists(), "looking writes nothing");
        fs::write(dir.path().join("file"), "").unwrap();
        for path in ["file", "file/inside", "file/inside/deep"] {
            let error = check(dir.path().join(path)).unwrap_err().to_string();
            assert!(error.contains("can not be a folder"), "{error}");
        }
        let error = check(dir.path().to_path_buf()).unwrap_err().to_string();
        assert!(error.contains("already exists"), "{error}");
    }

    #[test]
    fn inside_a_target_a_runs_own_files_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let place = OutputPlace::inside(dir.path());
        for name in [".journal", ".partial-7", "lost+found"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert!(place.check(false).is_ok());
        assert_eq!(place.journal(), dir.path().join(".journal"));
        fs::write(dir.path().join("letter.txt"), "").unwrap();
        assert!(place.check(false).is_err());
    }
}
