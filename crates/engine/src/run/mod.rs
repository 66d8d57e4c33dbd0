//! Running a model: pages and sequences (`pages`, `session`), many sequences in few steps (`scheduler`), and their texts (`engine`).

mod clock;
mod constraint;
mod engine;
mod error;
mod limits;
mod pages;
mod request;
pub mod scheduler;
mod session;
mod step_buffers;
mod tables;
mod text_of_sequence;

pub use constraint::{Constraint, ConstraintError, ConstraintState, Next, Progress, SharedConstraint};
pub use engine::{Engine, Event, OnText};
pub use error::SessionError;
pub use limits::SessionLimits;
pub use pages::PagePool;
pub use request::{BatchGeneration, GenerateError, GenerateOptions, Generation, Request, Timings};
pub use session::{Session, SessionMemory};
