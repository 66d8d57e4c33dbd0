//! What the verbs that look at a model take: `eval` and `inspect`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::arguments::device::OnDevice;
use crate::cli::arguments::values::count;

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// Folder of the model to judge (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of the original: KL divergence from it (mean, percentiles, the tokens that differ most), top-1 agreement.
    #[arg(long, value_name = "MODEL_DIR")]
    pub reference: Option<PathBuf>,
    /// Text to measure perplexity on. Without it (and without --tasks) the project's sample prose is used.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Task files in JSONL form, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "FILE.jsonl")]
    pub tasks: Vec<PathBuf>,
    /// Tokens in a window; windows do not overlap [default: 1024, or what the model has positions for].
    #[arg(long, value_name = "TOKENS", value_parser = count(2, 1 << 20))]
    pub context: Option<usize>,
    /// Only the first COUNT windows.
    #[arg(long, value_name = "COUNT", value_parser = count(1, 1 << 30))]
    pub windows: Option<usize>,
    /// Windows of the divergence from the original (the first ones; perplexity takes all).
    #[arg(long, default_value_t = 40, value_name = "COUNT", value_parser = count(1, 1 << 30))]
    pub divergence_windows: usize,
    /// Only the first COUNT items of each task file.
    #[arg(long, value_name = "COUNT", value_parser = count(1, 1 << 30))]
    pub limit: Option<usize>,
    /// Cache format to run with instead of the model's own.
    #[arg(long, value_enum)]
    pub kv: Option<EvalKv>,
    /// Say where the divergence comes from: weights, activations, output layer and cache, each in integers alone, on at most 8
    /// windows. Takes the memory of the model in 32-bit floats.
    #[arg(long, requires = "reference")]
    pub causes: bool,
    /// Where it runs.
    #[command(flatten)]
    pub device: OnDevice,
}

/// Cache formats an evaluation can force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvalKv {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers, a scale per token and head.
    Int8,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Folder of the model (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
}
