//! Fits a model to a measured set and judges it.
//!
//! The path of a fit: sound rows become samples (`training_set`); factors of the physical terms are fitted to them
//! (`rough_factors`, `least_squares`), then trees to what those leave (`trainer`). Folds of shapes are held out in turn,
//! so that every row is predicted by a model that has seen no row of its shape (`judgement`); from these errors come the
//! widths of intervals (`calibration`), the scores (`scores`) and the importances of features (`importance`). `fit` puts
//! a model together. `gpperf` judges the log of the paper that the idea comes from.

mod calibration;
mod fit;
pub mod gpperf;
mod importance;
mod judgement;
mod least_squares;
mod options;
mod rough_factors;
mod scores;
mod trainer;
mod training_set;

pub use judgement::{HeldOut, held_out};
pub use options::{FitOptions, Learner};
pub use scores::score;
