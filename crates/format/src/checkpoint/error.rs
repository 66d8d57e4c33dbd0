//! What can be wrong with a checkpoint file or a folder being written.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a checkpoint could not be read or written.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// An operation on a file failed.
    #[error("cannot {action} {}: {source}{}", .path.display(), advice(.source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not a safetensors file, or a truncated one.
    #[error("{}: not a complete safetensors file: {problem}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The output folder already holds something.
    #[error("{} already exists and is not empty: choose another folder, or replace it (--replace)", .path.display())]
    TargetExists {
        /// The folder.
        path: PathBuf,
    },
    /// A file stands where the output folder, or a folder on the way to it, should be.
    #[error("{} can not be a folder: it, or something on the way to it, is a file; choose another folder", .path.display())]
    TargetNoFolder {
        /// The folder asked for.
        path: PathBuf,
    },
    /// Replacing was asked for, but what is there is no model.
    #[error("{} holds no config.json, so it is no model folder and will not be replaced: choose another folder", .path.display())]
    TargetNoModel {
        /// The folder.
        path: PathBuf,
    },
    /// The output path cannot be a folder beside others (it is a root, or ends in `..`).
    #[error("{} cannot be an output folder: give a path that ends in a name", .path.display())]
    TargetName {
        /// The path.
        path: PathBuf,
    },
    /// A tensor was written that was not announced, twice, or with other bytes than announced.
    #[error("tensor `{name}`: {problem}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl CheckpointError {
    /// Wraps an I/O error with its path and action.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// What a user can do about an I/O error, as the end of a sentence.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free some space or choose another disk; nothing existing was changed"
        }
        io::ErrorKind::ReadOnlyFilesystem => ": the disk is read-only, choose another folder",
        io::ErrorKind::PermissionDenied => ": no permission, choose another folder or change its rights",
        io::ErrorKind::NotFound => ": check the path",
        _ => "",
    }
}
