//! Float model in, quantized model out.
//!
//! The steps in order of execution: calibration statistics, smoothing ([`smooth`]), the fine grain ([`group`]), the
//! coarse grain ([`channel`]). DGQ, arXiv 2310.04836.
#![forbid(unsafe_code)]

pub mod channel;
mod error;
mod grid;
pub mod group;
mod linear;
mod monitor;
mod screen;
pub mod smooth;

pub use error::QuantError;
pub use linear::{FloatRows, LinearFit, Search, output_error, quantize_linear};
pub use monitor::{Monitor, Progress};
