//! Verbs that compute from measurements alone: nothing is run, and no weights are read. `cost` is here because it needs of a
//! language model no more than its config.json.

pub mod cost;
pub mod fit;
mod learning;
pub mod predict;
pub mod report;
mod request;
pub mod select;
