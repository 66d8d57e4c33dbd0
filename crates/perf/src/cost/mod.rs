//! What a language model will cost on a machine.

mod calculation;
mod estimate;
mod html;
mod memory;
mod network;
mod price;
mod sum;
#[cfg(test)]
mod tests;
mod threads;
mod workload;

pub use calculation::{BatchCost, Cost, Line, Phase, cost};
pub use html::page;
pub use memory::Memory;
pub use network::{Linear, Network};
pub use price::{Price, Prices};
pub use workload::{Request, Scheme};
