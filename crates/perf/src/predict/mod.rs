//! Predicts the time, power and energy of a product in a kernel's configuration.
//!
//! The path of a prediction: a call names a kernel, a configuration and a product (`kernel_call`); the index finds the
//! configuration (`config_index`); physics gives a rough time and power (`physics`); trees correct both from features
//! (`features`, `estimator`); an interval is put around the result (`interval_width`, `prediction`). `model` holds the
//! parts together, `file` writes and reads them, `shipped` are the models that come with the program.

mod config_index;
mod estimator;
mod features;
mod file;
mod fit_summary;
mod interval_width;
mod kernel_call;
mod kernel_config;
mod kernel_range;
mod model;
mod model_parts;
pub(crate) mod physics;
mod prediction;
mod score;
mod shipped;

pub(crate) use config_index::ConfigIndex;
pub(crate) use estimator::{Estimate, Estimator};
#[cfg(test)]
pub(crate) use features::WIDTH;
pub use features::feature_names;
pub(crate) use features::{FeatureRow, NAMES, add_time_features, is_of_time};
pub use fit_summary::{FitSummary, Importance, Scores};
pub(crate) use interval_width::WidthModel;
pub use kernel_call::KernelCall;
pub use kernel_config::KernelConfig;
pub(crate) use kernel_config::{answers_to, config_name, in_groups_of};
pub use model::Model;
pub(crate) use model_parts::ModelParts;
pub use prediction::{COVERAGE, Interval, Objective, Prediction};
pub use score::Score;
pub(crate) use score::quantile;
