//! Chooses a kernel's configuration by prediction, and says what choosing so loses.
//!
//! - `ranking`: the best configuration for a product, and all of them in order; `pareto`: those that none beats in time and energy.
//! - `regret`: the loss of a choice against the best measured configuration.
//! - `gpu`: the choice as the GPU kernels take it, a cost function and a selection table.

#[cfg(feature = "cuda")]
pub mod gpu;
mod pareto;
mod ranking;
mod regret;

pub use pareto::pareto;
pub use regret::{
    EXHAUSTIVE_CANDIDATES, LEAST_CANDIDATES, Regret, RegretSummary, exhaustive, regrets, regrets_of, summary,
};
