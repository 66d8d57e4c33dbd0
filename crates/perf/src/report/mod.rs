//! The report: one HTML document with everything that a person wants to see of a measured set and of the model fitted to
//! it.
//!
//! `findings` is what goes in and `summary` the figures that come out; `document` puts the sections together. Each
//! section is a file in `sections`; a section without data says so in its place. `plot` draws.

mod document;
mod findings;
pub mod plot;
mod section;
mod sections;
mod statistics;
mod summary;
mod targets;
#[cfg(test)]
mod tests;
mod tile_study;

pub use document::render;
pub use findings::Findings;
pub use sections::{Choice, ChoiceSummary};
pub use summary::Summary;
pub use tile_study::{TileEffect, TileStudy};
