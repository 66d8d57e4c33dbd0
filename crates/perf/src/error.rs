//! The errors of this crate, and the hints in them: what a misspelt name may have meant.

use std::path::PathBuf;

use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PerfError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A line of a file of rows is no row.
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
    /// A call to a GPU failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] dualgrain_cuda::CudaError),
    /// A kernel of the CPU failed.
    #[error(transparent)]
    Kernel(#[from] dualgrain_device::DeviceError),
    /// The operands that a sweep drew do not make a layer.
    #[error("operands of a sweep: {what}")]
    DrawnOperands {
        /// The layer's own words.
        what: String,
    },
    /// Energy was asked for, but the card shows no counter of it.
    #[error("the card shows no energy counter that moves")]
    NoCounter,
    /// Two sets cannot be combined, because they were not measured alike.
    #[error("{left} and {right} cannot be merged: {what}")]
    Mismatch {
        /// One set.
        left: PathBuf,
        /// The other.
        right: PathBuf,
        /// What they differ in.
        what: String,
    },
    /// No machine runs the product.
    #[error("{what} is {got}, expected {expected}")]
    Shape {
        /// The number that is wrong.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// No kernel of the machine runs a product of a language model.
    #[error("no price for the product {what}: {source}")]
    Unpriced {
        /// Its name, its sizes and its scheme.
        what: String,
        /// The error of the last kernel that was asked.
        source: Box<PerfError>,
    },
    /// No kernel has this name.
    #[error("unknown kernel {got}: {hint}")]
    UnknownKernel {
        /// The name.
        got: String,
        /// What may have been meant.
        hint: String,
    },
    /// The kernel has no such configuration, or was not measured in it.
    #[error("{kernel} has no configuration {got}: {hint}")]
    UnknownConfig {
        /// The kernel.
        kernel: String,
        /// The configuration that was asked for.
        got: String,
        /// What may have been meant.
        hint: String,
    },
    /// There is no fitted model for a machine.
    #[error("no fitted model for {machine}: {hint}")]
    NoModel {
        /// The machine that was asked for.
        machine: String,
        /// What there is, and what to do.
        hint: String,
    },
    /// There is too little to learn from or to choose from.
    #[error("{what}: {got}, expected {expected}")]
    TooLittle {
        /// Of what there is too little.
        what: String,
        /// The least that is needed.
        expected: String,
        /// What there is.
        got: String,
    },
}

impl PerfError {
    pub(crate) fn operands(error: &impl std::fmt::Display) -> Self {
        Self::DrawnOperands {
            what: error.to_string(),
        }
    }

    pub(crate) fn no_folders() -> Self {
        Self::TooLittle {
            what: "folders of measurements".to_owned(),
            expected: "at least 1".to_owned(),
            got: "none".to_owned(),
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// The hint "did you mean ...? measured were ...".
pub(crate) fn measured_hint<'a>(got: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.dedup();
    let suggestion = suggestion(got, &known);
    let shown = known.len().min(12);
    let more = if known.len() > shown { ", ..." } else { "" };
    format!("{suggestion}measured were {}{more}", known[..shown].join(", "))
}

/// The hint "did you mean ...? ", empty where no name is known.
pub(crate) fn suggestion(got: &str, known: &[&str]) -> String {
    // A name that begins with what was typed comes before others that are as near.
    let distance = |name: &&&str| (!name.starts_with(got), strsim::levenshtein(name, got));
    let nearest = known.iter().min_by_key(distance);
    nearest.map_or(String::new(), |name| format!("did you mean {name}? "))
}
