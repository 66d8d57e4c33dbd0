//! Measured sets: the rows, the manifest that says how they were measured, and the folder that holds both.
//!
//! - `row`: one measured configuration; `plausibility`: what a row may hold; `pace`: what it may take beside the others.
//! - `manifest`: how and where a set was measured; `compatibility`: which sets may be combined.
//! - `dataset`: a set in memory; `best_rows`: the best row of each configuration; `merge`: several folders become one.
//! - `files`: the files of a folder; `writer`: rows are appended to them.

mod best_rows;
mod compatibility;
mod dataset;
mod files;
mod manifest;
mod merge;
mod pace;
mod plausibility;
mod row;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use best_rows::BestRows;
pub(crate) use compatibility::check_compatible;
pub use dataset::Dataset;
pub(crate) use files::check_vacant;
pub use manifest::{Manifest, OLDEST_PROTOCOL, PROTOCOL};
pub use merge::{Merged, merge};
pub use row::{Cut, QualityFlag, Row};
pub use writer::RowWriter;
