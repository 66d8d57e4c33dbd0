//! A sweep on a GPU. Time on a card is dear, so operands are made once for everything that is measured on a shape.
//!
//! - `sweep`: shape by shape; `integers` and `floats`: the products of a shape; `rows`: which configurations run on it.
//! - `check`: every product is checked before it is timed.
//! - `meter`: the card's clock; `timing`: the times of a product; `energy_window`: its energy.
//! - `counter`: a log of the energy counter; `ticks`: the moments at which it moves; `lag`: how far it is behind.
//! - `counter_check`: whether the counter agrees with samples of the power.
//! - `manifest`, `ceilings`, `libraries`: what a set says of its card.

mod ceilings;
mod check;
mod counter;
mod counter_check;
mod energy_window;
mod floats;
mod integers;
mod lag;
mod libraries;
mod manifest;
mod meter;
mod rows;
mod sweep;
mod ticks;
mod timing;

pub use counter::CounterLog;
pub use counter_check::{CounterComparison, check_energy_counter, samples_beside};
pub use manifest::small_op_rates;
pub use sweep::sweep_gpu;
