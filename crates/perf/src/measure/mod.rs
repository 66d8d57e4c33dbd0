//! Measures products: a sweep runs every configuration on every shape of a space.
//!
//! - `space`: which shapes, types and configurations are measured.
//! - `options`: what a sweep is asked for and what it did; `sweep`: the part of it that every device shares.
//! - `small_ops`: the rates of a device between products.
//! - `times`: median and quartiles of repetitions; `date`: the day of a set.
//! - `cpu`, `gpu`: operands, check, clock and energy on each kind of device.
//!
//! Each product is checked at full size before it is timed. A wrong product is flagged and never timed.

mod cpu;
mod date;
#[cfg(feature = "cuda")]
mod gpu;
mod options;
mod small_ops;
mod space;
mod sweep;
mod times;

pub use cpu::{NoEnergy, Rapl, RaplReading, sweep_cpu};
#[cfg(feature = "cuda")]
pub use gpu::{
    CounterComparison, CounterLog, check_energy_counter, samples_beside, small_op_rates, sweep_gpu,
};
pub use options::{SweepOptions, SweepSummary, Watch};
pub use space::Space;
