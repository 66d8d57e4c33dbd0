//! Running a model: sequences in steps (`session`), the next token (`sampler`), prompts to texts (`generate`).

pub mod generate;
pub mod sampler;
mod session;

pub use session::{Session, SessionError, SessionLimits, SessionMemory};
