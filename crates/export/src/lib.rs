//! A quantized folder of dualgrain in the formats of other programs.
//!
//! [`export`] reads a folder tensor by tensor and writes another one: floats for anything that reads Hugging Face folders
//! ([`ExportFormat::Hf`]), packed 4-bit integers for vLLM and transformers ([`ExportFormat::CompressedTensors`]), blocks for llama.cpp
//! ([`ExportFormat::Gguf`]). What a target has no place for is refused by name, before anything is written. `docs/export.md` says what each
//! format keeps.
#![forbid(unsafe_code)]

mod card;
mod compressed;
mod config_file;
mod error;
mod floats;
mod folder;
mod folding;
mod formats;
mod gguf;
mod run;
mod source;
mod watch;

pub use error::ExportError;
pub use folding::FoldingReport;
pub use formats::ExportFormat;
pub use run::{Summary, export};
pub use watch::{Progress, Watch};
