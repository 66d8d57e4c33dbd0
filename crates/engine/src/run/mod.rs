//! Running a model: sequences in steps (`session`), the next token (`sampler`), prompts to texts (`generate`).

mod error;
pub mod generate;
pub mod sampler;
mod session;

pub use error::SessionError;
pub use session::{Session, SessionLimits, SessionMemory};
