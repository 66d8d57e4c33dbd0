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
    /// A GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] dualgrain_cuda::CudaError),
    /// A kernel of the CPU.
    #[error(transparent)]
    Kernel(#[from] dualgrain_device::DeviceError),
    /// Operands that were drawn do not make a layer.
    #[error("operands of a sweep: {what}")]
    OperandTypes {
        /// The layer's own words.
        what: String,
    },
    /// Energy was asked for and cannot be had.
    #[error("the card shows no energy counter that moves")]
    NoCounter,
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
    /// A product no machine runs.
    #[error("{what} is {got}, expected {expected}")]
    Shape {
        /// Which number of it.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A product of a language model that no kernel of the machine runs.
    #[error("no price for the product {what}: {source}")]
    Unpriced {
        /// Its name, its sizes and its scheme.
        what: String,
        /// What the last kernel says.
        source: Box<PerfError>,
    },
    /// A kernel nobody has heard of.
    #[error("unknown kernel {got}: {hint}")]
    UnknownKernel {
        /// Its name.
        got: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// A kernel has no such configuration, or was never measured in it.
    #[error("{kernel} has no configuration {got}: {hint}")]
    UnknownConfig {
        /// The kernel.
        kernel: String,
        /// What was asked for.
        got: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// There is no fitted model for a machine.
    #[error("no fitted model for {machine}: {hint}")]
    NoModel {
        /// What was asked for.
        machine: String,
        /// What there is, and what to do.
        hint: String,
    },
    /// Measurements nothing can be learned from.
    #[error("{what}: {got}, expected {expected}")]
    TooLittle {
        /// What there is too little of.
        what: String,
        /// The least.
        expected: String,
        /// What there is.
        got: String,
    },
}

impl PerfError {
    pub(crate) fn operands(error: &impl std::fmt::Display) -> Self {
        Self::OperandTypes {
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

/// "did you mean ...", with what was measured.
pub(crate) fn measured_hint<'a>(got: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.dedup();
    let suggestion = suggestion(got, &known);
    let shown = known.len().min(12);
    let more = if known.len() > shown { ", ..." } else { "" };
    format!("{suggestion}measured were {}{more}", known[..shown].join(", "))
}

/// "did you mean ...? ", where there is anything that could be meant.
pub(crate) fn suggestion(got: &str, known: &[&str]) -> String {
    // A beginning is meant before a name that is as short.
    let distance = |name: &&&str| (!name.starts_with(got), strsim::levenshtein(name, got));
    let nearest = known.iter().min_by_key(distance);
    nearest.map_or(String::new(), |name| format!("did you mean {name}? "))
}
