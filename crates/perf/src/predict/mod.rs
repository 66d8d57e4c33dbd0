//! From a product and a configuration to time, power and energy.

mod config_index;
mod estimator;
mod features;
mod file;
mod interval_width;
mod model;
mod prediction;
mod rough_power;
mod rough_time;
mod score;

pub(crate) use config_index::{Catalogue, Sample, question, samples};
pub(crate) use estimator::{Estimate, Estimator, LEAST_POWER_ROWS, used};
pub use estimator::{FitOptions, Learner};
pub(crate) use features::{FeatureRow, NAMES};
pub(crate) use interval_width::{Residual, Spread, Spreading, calibrate, scales, widths};
pub use model::Model;
pub(crate) use model::{Parts, answers_to};
pub use prediction::{By, COVERAGE, Interval, Prediction};
pub use score::Score;
