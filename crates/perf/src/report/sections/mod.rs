//! The sections of the report, a file each.

pub(crate) mod accuracy;
pub(crate) mod correlation;
pub(crate) mod fit_scores;
pub(crate) mod importance;
pub(crate) mod layouts;
pub(crate) mod regret;
pub(crate) mod resources;
pub(crate) mod roofline;
pub(crate) mod tiles;
pub(crate) mod time_energy;

pub use regret::{Choice, ChoiceSummary};
