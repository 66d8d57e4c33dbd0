//! Large language models with 4-bit weights and 8-bit activations: quantize, judge and run them from a program.
//!
//! A folder of Hugging Face is quantized once and then loaded as often as it is needed:
//!
//! ```
//! # fn main() -> Result<(), dualgrain::Error> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let out = folder.path().join("llama-tiny-w4a8");
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/llama-tiny");
//! use dualgrain::{Engine, Quantizer, Request, SessionLimits, load};
//!
//! let summary = Quantizer::new(model, &out).calibration(dualgrain::SAMPLE_CALIBRATION).windows(4, 256).run()?;
//! assert_eq!(summary.report.linears.len(), 6 * 4);
//!
//! let loaded = load(&out, &dualgrain::Options::default())?;
//! let mut engine = Engine::new(loaded.model, loaded.tokenizer, SessionLimits::new(1, 64, 64))?;
//! let mut request = Request::default();
//! request.prompt = engine.tokenizer().encode("The old captain", true)?;
//! request.options.max_tokens = Some(8);
//! let (generation, timings) = engine.generate(request, &mut |text| {
//!     print!("{text}");
//!     std::ops::ControlFlow::Continue(())
//! })?;
//! assert_eq!(generation.tokens.len(), 8);
//! assert!(timings.decode_tokens_per_s > 0.0);
//! # Ok(())
//! # }
//! ```
//!
//! Many requests share steps when they are admitted one by one; what happens to each comes as events:
//!
//! ```
//! # fn main() -> Result<(), dualgrain::Error> {
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/llama-tiny");
//! use dualgrain::{Engine, Event, Request, SessionLimits, load};
//!
//! let loaded = load(model, &dualgrain::Options::default())?;
//! let mut engine = Engine::new(loaded.model, loaded.tokenizer, SessionLimits::new(4, 64, 64))?;
//! for prompt in ["Once", "The sea", "In the middle of the night"] {
//!     let mut request = Request::default();
//!     request.prompt = engine.tokenizer().encode(prompt, true)?;
//!     request.options.max_tokens = Some(5);
//!     engine.admit(request)?;
//! }
//! let mut finished = 0;
//! while !engine.is_idle() {
//!     for event in engine.step() {
//!         match event {
//!             Event::Token { id, text, .. } => println!("{id:?}: {text}"),
//!             Event::Finished { .. } => finished += 1,
//!             Event::Failed { error, .. } => return Err(error.into()),
//!         }
//!     }
//! }
//! assert_eq!(finished, 3);
//! # Ok(())
//! # }
//! ```
//!
//! How much quantizing costs is measured against the original:
//!
//! ```
//! # fn main() -> Result<(), dualgrain::Error> {
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/llama-tiny");
//! use dualgrain::evaluate::{Windows, perplexity};
//! use dualgrain::load;
//!
//! let loaded = load(model, &dualgrain::Options::default())?;
//! let windows = Windows::from_text(&loaded.tokenizer, "sample", dualgrain::SAMPLE_EVALUATION, 128, Some(2))?;
//! let report = perplexity(&loaded.model, &windows, &mut |_, _| {})?;
//! assert!(report.perplexity > 1.0 && report.perplexity < 1000.0);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

/// The engine whole: configurations, weights, sessions, the scheduler, tokenizers.
pub use dualgrain_engine as engine;
/// The number format whole: linears, schemes, folders.
pub use dualgrain_format as format;
/// Quantizing whole: jobs, methods, plans, reports.
pub use dualgrain_quant as quant;

mod any_device;
mod calibration;
#[cfg(feature = "cost")]
pub mod cost;
mod error;
mod load;
pub mod memory;
mod memory_plan;
mod quantizer;
pub mod units;

pub use any_device::{
    AnyDevice, CARD_STEP_TOKENS, CPU_STEP_TOKENS, ChosenDevice, DeviceChoice, DeviceChoiceError,
    OperationTimes,
};
pub use calibration::calibration_documents;
pub use dualgrain_cpu::CpuDevice;
pub use dualgrain_device::sampling::{Logprobs, SamplingParams};
pub use dualgrain_device::{ARITHMETIC, CacheFormat, Device, PAGE_TOKENS};
pub use dualgrain_engine::evaluate;
pub use dualgrain_engine::{
    BatchGeneration, Engine, Event, FinishReason, GenerateOptions, Generation, Model, ModelConfig, Request,
    SequenceId, SessionLimits, Timings,
};
pub use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme};
pub use dualgrain_quant::{
    JournalPolicy, Monitor, Plan, Progress, QuantJob, QuantOptions, QuantReport, QuantSummary, SchemeRule,
    Search, SmoothPairs, Smoothing,
};
pub use dualgrain_threads::share_one_arena;
pub use error::Error;
pub use load::{Loaded, Options, load, load_on, model_in_floats, model_on, plan_memory};
pub use memory_plan::MemoryPlan;
pub use quantizer::Quantizer;

/// Public-domain prose for calibration, for those who name no text of their own.
pub const SAMPLE_CALIBRATION: &str = include_str!("../../../models/llama-tiny/sample_calib.txt");
/// Public-domain prose for judging; none of it is in the training text of the bundled model.
pub const SAMPLE_EVALUATION: &str = include_str!("../../../models/llama-tiny/sample_eval.txt");
