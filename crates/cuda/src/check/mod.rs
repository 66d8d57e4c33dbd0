//! Whole products judged on the card: random operands made there, and Freivalds' check of what a kernel made of them.

mod freivalds;
mod random_operands;

pub use freivalds::{Blend, Element, Expected, Freivalds, Stored, Wrong, freivalds_sources};
pub use random_operands::{Arena, RandomOperands, operand_sources};
