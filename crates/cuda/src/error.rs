//! Why a GPU could not be used.

use std::path::Path;

use dualgrain_format::GroupSize;
use thiserror::Error;

/// Why a GPU could not be used. Every variant says what was asked and what was found.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum CudaError {
    /// A library of NVIDIA's is not on this machine.
    #[error("no {what} here: tried {tried}; {remedy}")]
    LibraryMissing {
        /// Words for the library.
        what: &'static str,
        /// Names tried.
        tried: String,
        /// What would help.
        remedy: &'static str,
    },
    /// A library lacks a function: it is older than what this program was written for.
    #[error("{library} has no function {symbol}: it is too old for this program")]
    SymbolMissing {
        /// File that was opened.
        library: String,
        /// Function looked for.
        symbol: String,
    },
    /// The driver is older than the compiler whose code it would have to run.
    #[error("the driver knows CUDA {driver} only; this program needs {needed}: update the driver")]
    DriverTooOld {
        /// CUDA version of the driver, e.g. `11.4`.
        driver: String,
        /// Version needed, and by what.
        needed: String,
    },
    /// The driver works and sees no card.
    #[error("the driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)")]
    NoGpu,
    /// The card asked for is not there.
    #[error("there is no GPU {asked}: the driver sees {count}")]
    GpuIndex {
        /// Index asked for.
        asked: usize,
        /// Cards present.
        count: usize,
    },
    /// The card is too old, or this compiler does not know it.
    #[error("{name} (compute capability {capability}) is not supported: {needed}")]
    UnsupportedGpu {
        /// The card's name.
        name: String,
        /// `major.minor`.
        capability: String,
        /// What is needed.
        needed: String,
    },
    /// A call failed.
    #[error("{call} failed: {words} (code {code})")]
    Call {
        /// The function.
        call: &'static str,
        /// Its result.
        code: i32,
        /// The library's own words for it.
        words: String,
    },
    /// A kernel did not compile.
    #[error("{kernel} does not compile for {arch}:\n{log}")]
    Compile {
        /// The kernel.
        kernel: String,
        /// Architecture it was compiled for.
        arch: String,
        /// The compiler's messages.
        log: String,
    },
    /// A compiled kernel is not the ELF file it should be.
    #[error("a compiled kernel is damaged: {what}")]
    Cubin {
        /// What is wrong.
        what: &'static str,
    },
    /// A file of the cache of compiled kernels.
    #[error("{path}: {words}")]
    File {
        /// The file.
        path: String,
        /// The system's words.
        words: String,
    },
    /// A buffer does not have the length its shape asks for.
    #[error("{what}: expected {expected} bytes, got {got}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Bytes the shape asks for.
        expected: usize,
        /// Bytes present.
        got: usize,
    },
    /// Weights have another group size than the product they are for.
    #[error("{what}: expected {expected}, got {got}")]
    GroupSize {
        /// Which operand.
        what: &'static str,
        /// The product's.
        expected: GroupSize,
        /// The operand's.
        got: GroupSize,
    },
    /// No kernel of the table can run this product on this card.
    #[error("no kernel for {what} on compute capability {capability}")]
    NoKernel {
        /// The product.
        what: String,
        /// `major.minor`.
        capability: String,
    },
    /// A size does not fit the kernels' 32-bit counts.
    #[error("{what} is too large for the GPU kernels: {got}")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// Its value.
        got: usize,
    },
}

impl CudaError {
    pub(super) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            words: error.to_string(),
        }
    }
}
