//! Checks a card's energy counter: against samples of the power over the same window, and against itself when one product
//! is measured again and again.

mod comparison;
mod csv;
mod figures;
mod loads;

pub use figures::CounterComparison;
pub use loads::{check_energy_counter, samples_beside};
