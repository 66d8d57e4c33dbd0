//! Why something could not be done.

use std::path::PathBuf;

use dualgrain_device::DeviceError;
use dualgrain_engine::evaluate::EvaluateError;
use dualgrain_engine::tokenizer::TokenizerError;
use dualgrain_engine::{ConfigError, EngineError, GenerateError, WeightsError};
use dualgrain_quant::QuantError;
use thiserror::Error;

use crate::memory_plan::MemoryPlan;
use crate::units::bytes;

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum Error {
    /// A model folder that is not there.
    #[error("{}: no such model folder", dir.display())]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// A model that memory can not hold.
    #[error("its weights need {} of memory, {} are free", bytes(*needed_bytes), bytes(*free_bytes))]
    Memory {
        /// What the packed weights take.
        needed_bytes: u64,
        /// What a program can take.
        free_bytes: u64,
    },
    /// A model that memory can not hold with the cache and the buffers it is to run with.
    #[error("it does not fit the memory: {0}")]
    Plan(Box<MemoryPlan>),
    /// A calibration text without words.
    #[error("the calibration text is empty: it needs a few thousand words")]
    NoText,
    /// A calibration file that can not be read, or is no text.
    #[error(transparent)]
    Calibration(#[from] dualgrain_format::text::TextError),
    /// A line of a JSONL file that is no document.
    #[error(
        "{}:{line}: expected a JSON object with the document in its field `text`, got {got}: give such a file, or plain text \
         under a name that does not end in .jsonl", path.display()
    )]
    CalibrationLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is there.
        got: String,
    },
    /// config.json is wrong or asks for something unsupported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors are missing or damaged.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer is missing or damaged, or a text can not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The device could not start or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A card can not be used.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] dualgrain_cuda::CudaError),
    /// This program was built without NVIDIA GPUs.
    #[error("cuda:{index} was asked for, and this program was built without NVIDIA GPUs (feature `cuda`)")]
    NoCuda {
        /// The card asked for.
        index: usize,
    },
    /// The model could not be loaded or run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nothing could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The model could not be judged.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The model could not be quantized.
    #[error(transparent)]
    Quant(#[from] QuantError),
}
