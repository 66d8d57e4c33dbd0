//! Why a GGUF file can not stand for a model folder.

use std::io;
use std::path::PathBuf;

use dualgrain_format::gguf::GgufError;
use thiserror::Error;

/// What is wrong with a file, or with the folder that stands for it.
#[derive(Debug, Error)]
pub enum GgufModelError {
    /// A file or a folder could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no GGUF file, or a damaged one.
    #[error("{}: no complete GGUF file: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GgufError,
    },
    /// The model in it is not read.
    #[error("{}: {problem}", .path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The metadata, what it holds and what is read.
        problem: String,
    },
    /// There is no place for the folder that stands for the file.
    #[error("{}: neither XDG_CACHE_HOME nor HOME is set: where should the small folder that stands for a GGUF file be?", .path.display())]
    NoCache {
        /// The file.
        path: PathBuf,
    },
}
