//! GGUF files in the place of model folders: a small folder beside the caches says in the files of Hugging Face what the metadata says (`view`:
//! `config`, `tokenizer`), and names the file, from which [`crate::Weights`] maps the tensors under the names of a folder (`names`).

mod config;
mod error;
pub(crate) mod names;
mod tokenizer;
mod view;

pub use error::GgufModelError;
pub use names::GGUF_POINTER;
pub use view::{gguf_folder, gguf_folder_in, is_gguf_file};
