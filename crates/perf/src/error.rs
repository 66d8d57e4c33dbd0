//! What can go wrong with measurements and models of them.

use std::path::PathBuf;

use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PerfError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row of a measurement file is not one.
    #[error("{path}, line {line}: {what}; remove the line or measure again")]
    CorruptRow {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A manifest, a sweep description or a model file that cannot be understood.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, what was expected, and what to do.
        what: String,
    },
    /// Sets that were not measured alike must not be mixed.
    #[error("{left} and {right} cannot be merged: {what}")]
    Mismatch {
        /// One set.
        left: PathBuf,
        /// The other.
        right: PathBuf,
        /// In what they differ.
        what: String,
    },
}

impl PerfError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
