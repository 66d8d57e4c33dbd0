//! Predicts what a language model will cost on a machine: time to the first token, tokens per second, joules per token,
//! memory.
//!
//! A fitted model prices the products of every step, each in the kernel and configuration that it would choose (`price`,
//! `phase`). The rest of a step is an estimate from its bytes and operations and the machine's measured ceilings, and
//! every such item says so. Where models were run whole on the machine, what they took corrects both (`correction`). `network` and `workload` are what is asked, `answer` what comes back, `html` the
//! same with pictures.

mod answer;
mod assumptions;
mod calculation;
mod correction;
mod html;
mod memory;
mod network;
mod phase;
mod price;
mod scheme;
#[cfg(test)]
mod tests;
mod threads;
mod workload;

pub use answer::{BatchCost, CostItem, NetworkCost};
pub use calculation::cost;
pub use html::html;
pub use memory::Memory;
pub use network::{Linear, Network};
pub use price::{Price, Prices};
pub use scheme::Scheme;
pub use workload::{Phase, Workload};
