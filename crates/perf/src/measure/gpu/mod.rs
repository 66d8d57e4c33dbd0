//! A sweep on a card.

mod check;
mod counter;
mod counter_check;
mod manifest;
mod meter;
mod rows;
mod sweep;

pub use counter_check::{EnergyTruth, check_energy};
pub use sweep::profile_gpu;
