//! Checkpoints: safetensors files read from byte slices, and model folders written so that a half-written one can
//! never be mistaken for a model.

mod error;
mod floats;
mod folder;
mod linear;
mod names;
mod place;
mod table;
mod writer;

pub use error::{CheckpointError, advice};
pub use floats::{f32_bytes, widen};
pub use folder::FolderWriter;
pub use linear::{LinearLayout, TensorBytes, linear_tensors};
pub use names::{FOREIGN_CONFIGS, INDEX, MODEL_FILES, SINGLE, TEMPLATES, part_of_set, templates_in};
pub use place::{OutputPlace, free_bytes};
pub use table::{TensorEntry, TensorTable};
pub use writer::{SHARD_BYTES, TensorSpec};

pub use safetensors::Dtype;
