//! Whole products judged on the card: random operands made there, and Freivalds' check of what a kernel made of them.

mod freivalds;
mod launch;
mod random_operands;
mod wrong_count;

pub use freivalds::{Blend, Element, Expected, Freivalds, Stored, freivalds_sources};
pub use random_operands::{RandomOperands, operand_sources};
pub use wrong_count::Wrong;
