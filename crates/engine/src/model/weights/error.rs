//! What can be wrong with the tensors of a model folder.

use std::path::PathBuf;

use dualgrain_format::FormatError;
use dualgrain_format::checkpoint::{CheckpointError, Dtype};
use dualgrain_format::foreign::ForeignError;
use dualgrain_format::gguf::GgufError;
use dualgrain_format::text::TextError;
use thiserror::Error;

/// Why tensors were refused.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// A file could not be opened, or is no complete safetensors file.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// The folder has no weights this engine reads.
    #[error("{}: neither model.safetensors nor model.safetensors.index.json is here{hint}", .dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// What else was found, as the end of a sentence.
        hint: String,
    },
    /// An index is no text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The index of a sharded checkpoint is wrong or does not fit its shards; so is another file that says what tensors there are or what
    /// they mean.
    #[error("{}: {problem}", .path.display())]
    Index {
        /// The index or the like, or the file that disagrees with it.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor the model needs is not there.
    #[error("{}: tensor `{name}` is missing{hint}", .path.display())]
    Missing {
        /// The file, or the folder where there are several.
        path: PathBuf,
        /// The tensor looked for.
        name: String,
        /// What else is known of it, as the end of a sentence.
        hint: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("{}: tensor `{name}` has shape {got:?}, expected {expected:?}", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape that follows from config.json.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor has another element type than it must.
    #[error("{}: tensor `{name}` has type {got:?}, expected {expected}", .path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The types accepted.
        expected: &'static str,
        /// The type found.
        got: Dtype,
    },
    /// NaN or infinity.
    #[error("{}: tensor `{name}`[{index}] is {got}, expected a finite number", .path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Flat index of the element.
        index: usize,
        /// The value.
        got: f32,
    },
    /// The system has no room for a tensor.
    #[error("{}: no memory for tensor `{name}`: {size_bytes} bytes are needed", .path.display())]
    OutOfMemory {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Bytes of the part that was read.
        size_bytes: usize,
    },
    /// The tensors of a linear break the number format.
    #[error("{}: linear `{name}`: {source}", .dir.display())]
    Linear {
        /// The folder.
        dir: PathBuf,
        /// The linear.
        name: String,
        /// The rule broken.
        source: FormatError,
    },
    /// Another program quantized the model in a way that is not read.
    #[error("{}: {source}", .path.display())]
    Foreign {
        /// The file that says how.
        path: PathBuf,
        /// What is not read.
        source: Box<ForeignError>,
    },
    /// The tensors of a linear that another program quantized fit neither each other nor what the folder says of them.
    #[error("{}: linear `{name}` of {method}: {source}", .path.display())]
    Packed {
        /// The file of its codes.
        path: PathBuf,
        /// The linear.
        name: String,
        /// How the folder was quantized.
        method: String,
        /// What is wrong.
        source: Box<ForeignError>,
    },
    /// The file that a folder stands for is no GGUF file, or a damaged one.
    #[error("{}: no complete GGUF file: {source}", .path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<GgufError>,
    },
    /// config.json ties head and embedding, but the file has two different matrices.
    #[error("{}: `{head}.weight` differs from `{embedding}.weight`, but config.json says tie_word_embeddings", .dir.display())]
    TiedHead {
        /// The folder.
        dir: PathBuf,
        /// Name of the head.
        head: String,
        /// Name of the embedding.
        embedding: String,
    },
    /// Tensors that no part of the model took: the file is not the model config.json describes.
    #[error("{}: tensors that do not belong to the model of config.json ({count}): {}", .dir.display(), .names.join(", "))]
    Unused {
        /// The folder.
        dir: PathBuf,
        /// How many.
        count: usize,
        /// The first few.
        names: Vec<String>,
    },
}
