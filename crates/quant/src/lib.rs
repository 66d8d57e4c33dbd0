//! Float model in, quantized model out.
//!
//! The steps in order of execution: calibration statistics ([`Windows`]), smoothing ([`smooth`]), the fine grain
//! ([`group`]), the coarse grain ([`channel`]). DGQ, arXiv 2310.04836.
#![forbid(unsafe_code)]

mod calibration;
pub mod channel;
mod error;
mod grid;
pub mod group;
mod linear;
mod monitor;
mod options;
mod screen;
pub mod smooth;
mod work;

pub use calibration::{WindowRows, Windows};
pub use error::QuantError;
pub use linear::{FloatRows, LinearFit, Search, output_error, quantize_linear};
pub use monitor::{Meter, Monitor, Progress};
pub use options::{JournalPolicy, QuantJob, QuantOptions};
