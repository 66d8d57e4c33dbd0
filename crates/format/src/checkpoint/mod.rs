//! Checkpoints: safetensors files read from byte slices, and model folders written so that a half-written one can
//! never be mistaken for a model.

mod error;
mod folder;
mod table;
mod writer;

pub use error::{CheckpointError, advice};
pub use folder::FolderWriter;
pub use table::{TensorEntry, TensorTable};
pub use writer::{TensorSpec, TensorsWriter};

pub use safetensors::Dtype;
