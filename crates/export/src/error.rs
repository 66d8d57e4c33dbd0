//! Why a model could not be exported.

use std::path::PathBuf;

use dualgrain_engine::tokenizer::TokenizerError;
use dualgrain_engine::{ConfigError, EngineError, WeightsError};
use dualgrain_format::checkpoint::CheckpointError;
use dualgrain_format::{FormatError, GroupSize};
use thiserror::Error;

use crate::formats::ExportFormat;

/// Why a model could not be exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The caller's cancellation flag was raised.
    #[error("cancelled; nothing was written")]
    Cancelled,
    /// The folder was never quantized.
    #[error(
        "{}: it is not quantized, so there is nothing to write as {format}: it is a Hugging Face folder already (dualgrain quantize makes a quantized one{})",
        .dir.display(), if *.format == ExportFormat::Hf { "" } else { "; --format gguf takes floats too" }
    )]
    NotQuantized {
        /// The folder.
        dir: PathBuf,
        /// The format asked for.
        format: ExportFormat,
    },
    /// Another program quantized the folder.
    #[error(
        "{}: {method} quantized it, not dualgrain, whose integers {format} is made of: make a folder of dualgrain first (dualgrain quantize), or \
         export as gguf, which takes the floats that its numbers stand for",
        .dir.display()
    )]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// How it was quantized.
        method: String,
        /// The format asked for.
        format: ExportFormat,
    },
    /// Other programs expect the experts of the family in one tensor.
    #[error(
        "{format} is not written for gpt_oss: other programs expect one tensor for a linear of all experts, and the folder has one for each"
    )]
    Stacked {
        /// The format asked for.
        format: ExportFormat,
    },
    /// The input of a linear is transformed while the model runs.
    #[error(
        "{format} has no place for a transform of activations, and quantization_config has `hadamard_down` {block}: quantize again without \
         --hadamard-down, or export as hf, where the transform is folded into the weights"
    )]
    Transform {
        /// Channels of a block of the transform.
        block: usize,
        /// The format asked for.
        format: ExportFormat,
    },
    /// Groups that the target can not hold.
    #[error(
        "linear `{linear}`: {format} can not hold rows of {k} weights in groups of {group_size}: it needs a multiple of {multiple}; quantize again with \
         another --group-size, or export as hf"
    )]
    Groups {
        /// The linear.
        linear: String,
        /// Weights of a row.
        k: usize,
        /// Its groups.
        group_size: GroupSize,
        /// What the row would have to be a multiple of.
        multiple: usize,
        /// The format asked for.
        format: ExportFormat,
    },
    /// A folded scale that a 16-bit float can not hold.
    #[error(
        "linear `{linear}`, row {row}, group {group}: the scale s1*s2 = {scale:e} {problem} as a 16-bit float, which is all that {format} has: export as hf"
    )]
    Scale {
        /// The linear.
        linear: String,
        /// Its row.
        row: usize,
        /// The group in that row.
        group: usize,
        /// What should be stored.
        scale: f64,
        /// What becomes of it.
        problem: &'static str,
        /// The format asked for.
        format: ExportFormat,
    },
    /// Something in the model that the target has no place for.
    #[error(
        "{format} has no place for this model: {what}: expected {expected} (docs/export.md lists what each format takes)"
    )]
    Unsupported {
        /// The format asked for.
        format: ExportFormat,
        /// What was found.
        what: String,
        /// What would do.
        expected: String,
    },
    /// A file of the model does not hold what it should.
    #[error("{}: expected {expected}, got {got}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// The output folder holds something.
    #[error("{} already exists and is not empty: choose another folder with --out", .path.display())]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// A path for a file where a folder is made.
    #[error("{}: --out names a folder; the file in it will be {inside}", .path.display())]
    FileForFolder {
        /// The path asked for.
        path: PathBuf,
        /// The file inside.
        inside: &'static str,
    },
    /// The model could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// config.json asks for something unsupported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor is missing or damaged.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer is missing or damaged.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A linear breaks the number format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The output could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of JSON is damaged.
    #[error("{}: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
