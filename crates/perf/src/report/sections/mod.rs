//! The sections of the report.

pub(crate) mod accuracy;
pub(crate) mod correlation;
pub(crate) mod importance;
pub(crate) mod regret;
pub(crate) mod resources;
pub(crate) mod roofline;
pub(crate) mod tiles;
pub(crate) mod time_energy;

pub use regret::{Choice, ChoiceSummary};
pub use tiles::{Answer, TileStudy};
