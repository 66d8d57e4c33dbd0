//! What the tests of several crates share. Nothing else depends on this crate: it stands in `[dev-dependencies]` alone.
//!
//! - [`skipped`]: what a test could not check here, so that a run can list it at its end, or fail.
//! - [`damage`] and [`damage_text`]: files and texts with random damage.
//! - [`copy_folder`]: a copy of a folder that a test may damage.
//! - [`peak_resident_bytes`]: the memory that a child process took at most.
#![forbid(unsafe_code)]

mod damage;
mod folder;
mod peak_memory;
mod skipped;

pub use damage::{damage, damage_text};
pub use folder::copy_folder;
pub use peak_memory::peak_resident_bytes;
pub use skipped::skipped;
