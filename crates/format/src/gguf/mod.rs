//! GGUF, the one-file format of llama.cpp: metadata by name, then tensors, many of them in blocks of codes.
//!
//! ```text
//! "GGUF"  version u32  number of tensors u64  number of metadata u64
//! metadata: name, type u32, value             a text is its length u64 and its bytes; a list is its type u32, its length u64, its values
//! tensors:  name, dimensions u32, sizes u64 (innermost first), type u32, place u64 after the beginning of the data
//! zeros up to a multiple of the alignment, then the data
//! ```

mod blocks;
mod names;
mod reader;
mod types;
pub mod words;
mod writer;

pub use blocks::GgufKind;
pub use names::{folder_name, part_name, tensor_name};
pub use reader::{GgufEntry, GgufError, GgufFile};
pub use types::{ALIGNMENT, GgufTensor, GgufValue, MAGIC, VERSION};
pub use writer::GgufWriter;
