//! Everything a person wants to see of a measured set and of the model fitted to it.

mod document;
pub mod plot;
mod sections;
mod statistics;
#[cfg(test)]
mod tests;

pub use document::{Findings, Summary, page};
pub use sections::{Answer, Choice, ChoiceSummary, TileStudy};
