//! Mixtures of experts: which tokens go to which expert, products with the experts' weights, and what they add up to.
//!
//! `token_routing` holds a routing on the card and fills it, `expert_table` tells kernels where the weights of each expert lie, `gemm_experts`
//! launches their products, `combine` adds up what they gave. The host knows how many tokens a step has, never which experts they go to: grids
//! are as large as they may have to be, and CTAs without work leave.

mod combine;
mod expert_table;
mod gemm_experts;
mod token_routing;

pub use combine::{Combine, combine_source};
pub use expert_table::{ExpertLinear, ExpertTable, ExpertWeightsKind};
pub use gemm_experts::{ExpertKernel, ExpertOperand, GemmExperts, gemm_experts_sources};
pub use token_routing::{TokenRouting, routing_sources};
