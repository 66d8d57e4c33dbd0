//! Float model in, quantized model out.
//!
//! [`quantize`] runs a model block by block over calibration windows and quantizes each linear on what the quantized
//! ones before it give. The steps of a linear, in order: statistics of its input, smoothing ([`smooth`]), the fine
//! grain ([`group`]), the coarse grain ([`channel`]). DGQ, arXiv 2310.04836.
#![forbid(unsafe_code)]

mod activation;
mod block;
mod calibration;
pub mod channel;
mod error;
mod grid;
pub mod group;
mod head;
mod journal;
mod linear;
mod monitor;
mod options;
mod output;
mod page;
mod plan;
mod quantize;
mod report;
mod screen;
pub mod smooth;
mod stream;
mod work;

pub use calibration::{WindowRows, Windows};
pub use error::QuantError;
pub use linear::{FloatRows, LinearFit, Search, output_error, quantize_linear};
pub use monitor::{Meter, Monitor, Progress};
pub use options::{JournalPolicy, QuantJob, QuantOptions};
pub use output::{REPORT_HTML, REPORT_JSON};
pub use plan::{InferenceMemory, MemoryPart, Plan, plan};
pub use quantize::{QuantSummary, quantize};
pub use report::{LinearReport, QuantReport, SweepPoint};
