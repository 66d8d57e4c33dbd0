//! What `predict` and `select` take.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use crate::cli::arguments::values::{Replacing, count, number};

const LONGEST_SIDE: u64 = dualgrain_perf::LONGEST_SIDE as u64;
/// Sums of longer rows would leave 32 bits.
const K_MAX: u64 = dualgrain_perf::K_MAX as u64;

/// Options of `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// Tokens.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
    pub m: usize,
    /// Output features.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
    pub n: usize,
    /// Reduction; sums of the format's layers stay in 32 bits up to 131,071.
    #[arg(long, value_name = "COUNT", value_parser = count(1, K_MAX))]
    pub k: usize,
    /// How it is run, and where.
    #[command(flatten)]
    pub run: Run,
    /// The kernel's size, as `profile` and `bench gemm` write it, in every kernel that has it [default: every one that was
    /// measured].
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<String>,
}

/// Options of `select`.
#[derive(Debug, Args)]
pub struct Select {
    /// Tokens.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
    pub m: Option<usize>,
    /// Output features.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
    pub n: Option<usize>,
    /// Reduction; sums of the format's layers stay in 32 bits up to 131,071.
    #[arg(long, value_name = "COUNT", value_parser = count(1, K_MAX))]
    pub k: Option<usize>,
    /// How it is run, and where.
    #[command(flatten)]
    pub run: Run,
    /// What is to be least.
    #[arg(long, value_enum, default_value_t = Aim::Time)]
    pub by: Aim,
    /// Judge the choice on held-out shapes of measurements against the best of what was measured.
    #[arg(long, value_name = "DATA", conflicts_with = "table")]
    pub regret: Vec<PathBuf>,
    /// Seed of the deal of shapes into the parts that --regret judges.
    #[arg(long, default_value_t = 7, value_name = "SEED", requires = "regret")]
    pub seed: u64,
    /// Write the table that the kernels read at load.
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
    /// With --table: a file of `bench gemm --csv` whose chosen configurations stand before predictions, because all that
    /// came into question was timed on the card.
    #[arg(long, value_name = "FILE", requires = "table")]
    pub known: Option<PathBuf>,
}

/// How a product is run, and where.
#[derive(Debug, Args)]
pub struct Run {
    /// A kernel (gemm_w4a8_sm90), or all that multiply a type (w4a8, bf16, int8).
    #[arg(long, default_value = "w4a8", value_name = "NAME")]
    pub kernel: String,
    /// Machine whose fitted model comes with the program; `cpu` is the kind of CPU the project was measured on.
    #[arg(long, default_value = "h200", value_name = "MACHINE")]
    pub device: String,
    /// Another fitted model.
    #[arg(long, value_name = "MODEL", conflicts_with = "device")]
    pub model: Option<PathBuf>,
    /// Weights along K that share a group scale; 0 means none, or one a row.
    #[arg(long, default_value = "128", value_parser = PossibleValuesParser::new(["0", "32", "64", "128"]))]
    pub group_size: String,
    /// Which operands are stored transposed; the first letter is A's.
    #[arg(long, default_value = "nt", value_parser = PossibleValuesParser::new(["nn", "nt", "tn", "tt"]))]
    pub layout: String,
    /// Factor of the product.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_parser = |text: &str| number(text, -1e30, 1e30))]
    pub alpha: f64,
    /// Factor of what was in D.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_parser = |text: &str| number(text, -1e30, 1e30))]
    pub beta: f64,
    /// Type of D [default: for each kernel what it was mostly measured with].
    #[arg(long, value_parser = PossibleValuesParser::new(["f32", "f16", "bf16", "i32"]))]
    pub output: Option<String>,
}

/// What is to be least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Aim {
    /// Seconds.
    Time,
    /// Joules.
    Energy,
    /// Joules times seconds.
    Edp,
}
