//! Float model in, quantized model out.
//!
//! [`quantize`] runs a model block by block over calibration windows and quantizes each linear on what the quantized
//! ones before it give. The steps of a linear, in order: statistics of its input (`calibrate`), smoothing
//! (`transform`), the fine and the coarse grain ([`methods`]). DGQ, arXiv 2310.04836.
#![forbid(unsafe_code)]

mod budget;
mod calibrate;
mod error;
pub mod methods;
mod monitor;
mod options;
mod report;
mod run;
mod schemes;
mod stored_bytes;
mod transform;
mod transposed;

pub use budget::choice::{Choice, ChosenLinear};
pub use budget::sensitivity::Sensitivity;
pub use calibrate::statistics::{InputStatistics, Observation};
pub use error::QuantError;
pub use methods::ablation::{Ablation, Step, StepError};
pub use methods::search::Search;
pub use monitor::{Meter, Monitor, Progress};
pub use options::{JournalPolicy, QuantJob, QuantOptions};
pub use report::json::{LinearReport, QuantReport};
pub use run::block::quantized_block::QuantizedBlock;
pub use run::identity::Identity;
pub use run::journal::{FinishedBlock, Journal};
pub use run::output::{REPORT_HTML, REPORT_JSON};
pub use run::plan::{InferenceMemory, MemoryPart, Plan, plan};
pub use run::quantize::{QuantSummary, quantize};
pub use schemes::{SchemeRule, SchemeRuleError};
pub use transform::sample::SweepPoint;
pub use transform::smoothing::{SmoothPairs, Smoothing};
