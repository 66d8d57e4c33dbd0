//! What `cost` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::arguments::predict::Aim;
use crate::cli::arguments::quantize::{Kv, LmHead};
use crate::cli::arguments::values::{Replacing, count};

/// Options of `cost`.
#[derive(Debug, Args)]
pub struct Cost {
    /// A model folder, or a config.json; weights are not needed.
    #[arg(value_name = "MODEL_DIR|CONFIG")]
    pub model: PathBuf,
    /// Machine whose fitted model comes with the program; `cpu` is the kind of CPU the project was measured on.
    #[arg(long, default_value = "h200", value_name = "MACHINE")]
    pub device: String,
    /// Another fitted model.
    #[arg(long = "model", value_name = "MODEL", conflicts_with = "device")]
    pub fitted: Option<PathBuf>,
    /// Sequences at once, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32", value_name = "COUNTS", value_parser = count(1, 1 << 16))]
    pub batch: Vec<usize>,
    /// Tokens of each prompt [default: 512, or what the model's positions leave beside --generate].
    #[arg(long, value_name = "TOKENS", value_parser = count(1, 1 << 24))]
    pub prompt: Option<usize>,
    /// Tokens to generate for each sequence.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = count(1, 1 << 24))]
    pub generate: usize,
    /// Tokens a step of the prompts runs at most [default: as many as models run with: 512 on a CPU, 2048 on a card].
    #[arg(long, value_name = "TOKENS", value_parser = count(1, 1 << 20))]
    pub step_tokens: Option<usize>,
    /// How the linears of the blocks are stored and multiplied.
    #[arg(long, value_enum, default_value_t = CostScheme::W4a8)]
    pub scheme: CostScheme,
    /// Precision of the output layer [default: as the folder says, else int8, and float with bf16 linears].
    #[arg(long, value_enum)]
    pub lm_head: Option<LmHead>,
    /// How keys and values are cached [default: as the folder says, else int8, and f16 with bf16 linears].
    #[arg(long, value_enum)]
    pub kv: Option<Kv>,
    /// What each product's kernel and size make least.
    #[arg(long, value_enum, default_value_t = Aim::Time)]
    pub by: Aim,
    /// Write a page with pictures.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
}

/// How a model's linears are stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CostScheme {
    /// 4-bit weights, 8-bit activations.
    W4a8,
    /// 8-bit weights and activations.
    W8a8,
    /// 16-bit floats.
    Bf16,
}
