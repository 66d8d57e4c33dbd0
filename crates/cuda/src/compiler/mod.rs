//! From a kernel's text to code on a card: compiled by NVRTC for the card that is there, kept on disk.

mod cache;
mod jit;
mod nvrtc;
mod source;

pub use cache::{CACHE_VARIABLE, Cache, Key};
pub use jit::Jit;
pub use nvrtc::compiler_version;
pub use source::Source;
