//! Measurements and their files.

mod compatibility;
mod dataset;
mod merge;
mod row;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use compatibility::check_compatible;
pub(crate) use dataset::Configurations;
pub use dataset::Dataset;
pub use merge::{Merged, merge};
pub use row::{Cut, Layout, Mark, Row};
pub use writer::RowWriter;
pub(crate) use writer::check_vacant;
