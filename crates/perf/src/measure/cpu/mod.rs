//! A sweep on the CPU: every instruction set of the machine with every number of threads.

mod check;
mod manifest;
mod op;
mod operands;
mod rapl;
mod sweep;
mod timed_models;
mod timing;

pub use rapl::{NoEnergy, Rapl, RaplReading};
pub use sweep::sweep_cpu;
