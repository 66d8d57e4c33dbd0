//! Fitting a model and judging it.

mod fit;
pub mod gpperf;
mod importance;

pub use fit::{FitReport, HeldOut, Importance, Scores, feature_names, held_out, score};
