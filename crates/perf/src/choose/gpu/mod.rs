//! The choice by prediction as the GPU kernels take it.
//!
//! - `cost`: a model as the cost function that the kernels ask.
//! - `table`: the text of the selection table that the kernels read when they are loaded.
//! - `regret`: the regret of the model, of the table and of the hand-written cost function.

mod cost;
mod regret;
mod table;

pub use cost::{PredictedCost, device, output_name};
pub use regret::{analytic_regrets, learned_regrets, table_regrets};
pub use table::{KnownChoice, table};
