//! Choosing a configuration by prediction.

#[cfg(feature = "cuda")]
pub mod gpu;
mod regret;

pub use regret::{
    EXHAUSTIVE_CANDIDATES, LEAST_CANDIDATES, Regret, RegretSummary, exhaustive, pareto, regrets, regrets_of,
    summary,
};
