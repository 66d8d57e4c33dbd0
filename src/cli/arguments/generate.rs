//! What `generate` and `chat` take.

use std::path::PathBuf;

use clap::Args;

use crate::cli::arguments::device::OnDevice;
use crate::cli::arguments::values::{count, number, positive_probability, probability};

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Folder of the model (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue.
    #[arg(allow_hyphen_values = true)]
    pub prompt: String,
    /// How the next token is drawn.
    #[command(flatten)]
    pub sampling: Sampling,
    /// Where it runs.
    #[command(flatten)]
    pub device: OnDevice,
}

/// Options of `chat`.
#[derive(Debug, Args)]
pub struct Chat {
    /// Folder of the model (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// A system message to begin with.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How the next token is drawn.
    #[command(flatten)]
    pub sampling: Sampling,
    /// Where it runs.
    #[command(flatten)]
    pub device: OnDevice,
}

/// How the next token is drawn.
#[derive(Debug, Args)]
pub struct Sampling {
    /// 0 takes the most likely token every time.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_parser = |text: &str| number(text, 0.0, 1e6).map(|n| n as f32))]
    pub temperature: f32,
    /// Only the K most likely tokens; 0 means all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Only the most likely tokens that together reach probability P.
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = positive_probability)]
    pub top_p: f32,
    /// Only tokens at least P times as likely as the best.
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub min_p: f32,
    /// Seed of the random choice; the same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 256, value_name = "COUNT", value_parser = count(1, 1 << 30))]
    pub max_tokens: usize,
    /// Text that ends the answer (may be given more than once).
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
}
