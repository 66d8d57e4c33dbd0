//! Arguments of the verbs about cost: what is measured, fitted, predicted and chosen.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::arguments::{Kv, LmHead, count, number};

const LONGEST_SIDE: u64 = dualgrain_perf::LONGEST_SIDE as u64;

/// Options of `fit`.
#[derive(Debug, Args)]
pub struct Fit {
    /// Folders that `profile` wrote, all of one machine.
    #[arg(value_name = "DATA", required_unless_present = "paper_log")]
    pub data: Vec<PathBuf>,
    /// The model file to write; without it the fit is only judged.
    #[arg(long, value_name = "MODEL")]
    pub out: Option<PathBuf>,
    /// What learns.
    #[arg(long, value_enum, default_value_t = Learner::Boost)]
    pub learner: Learner,
    /// Seed of everything random; the same seed gives the same file.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Judge by GPPerf's own log and protocol instead (a CSV of its columns).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "out", "hold_out_peers"])]
    pub paper_log: Option<PathBuf>,
    /// Keep the products of a CSV (columns m, n, k, bf16_us) out of the fit and compare with it afterwards.
    #[arg(long, value_name = "FILE")]
    pub hold_out_peers: Option<PathBuf>,
}

/// What learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Learner {
    /// A random forest.
    Forest,
    /// Gradient boosting.
    Boost,
    /// Whichever has the lesser error on shapes it has not seen.
    Best,
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

/// Options of `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// Tokens.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
    pub m: usize,
    /// Output features.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
    pub n: usize,
    /// Reduction.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
    pub k: usize,
    /// How it is run, and where.
    #[command(flatten)]
    pub run: Run,
    /// The kernel's size, as `profile` and `bench gemm` write it, in every kernel that has it [default: every one that was
    /// measured].
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<String>,
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
    /// Tokens of each prompt.
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = count(1, 1 << 24))]
    pub prompt: usize,
    /// Tokens to generate for each sequence.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = count(1, 1 << 24))]
    pub generate: usize,
    /// Tokens a step of the prompts runs at most.
    #[arg(long, default_value_t = 4096, value_name = "TOKENS", value_parser = count(1, 1 << 20))]
    pub step_tokens: usize,
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
    /// Reduction.
    #[arg(long, value_name = "COUNT", value_parser = count(1, LONGEST_SIDE))]
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
    /// With --table: a file of `bench gemm --csv` whose chosen configurations stand before predictions, because all that
    /// came into question was timed on the card.
    #[arg(long, value_name = "FILE", requires = "table")]
    pub known: Option<PathBuf>,
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

/// Options of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Measured sets (folders that `profile` wrote on one machine), a fitted model (a file, or a machine's name), or both.
    #[arg(value_name = "DATA|MODEL", required = true)]
    pub sources: Vec<PathBuf>,
    /// The page to write; it opens without a network.
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    pub out: PathBuf,
}

/// Options of `profile`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub struct Profile {
    /// Something other than measuring.
    #[command(subcommand)]
    pub action: Option<ProfileAction>,
    /// Where to measure: cpu, or a card as cuda:0.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Kernels whose names begin so, separated by commas (gemm_w4a8, cublas, sgemm_tiled) [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub kernels: Vec<String>,
    /// What to measure, as JSON (shapes, ranges, numbers) [default: real models' shapes and a sample].
    #[arg(long, value_name = "FILE")]
    pub space: Option<PathBuf>,
    /// Folder for rows.csv and manifest.json.
    #[arg(long, default_value = "profile", value_name = "DIR")]
    pub out: PathBuf,
    /// Folders of the same machine, separated by commas: what they hold is not measured again, but for energy that they lack
    /// (merge puts both together).
    #[arg(long, value_delimiter = ',', value_name = "DIRS")]
    pub known: Vec<PathBuf>,
    /// Share of the rows whose energy is measured; of rows that are there without it, too [default: the space's].
    #[arg(long, value_name = "SHARE", value_parser = |text: &str| number(text, 0.0, 1.0))]
    pub energy_share: Option<f64>,
    /// End after this time (90s, 20m, 2h), between two rows.
    #[arg(long, value_name = "TIME", value_parser = crate::measure::profile::budget)]
    pub budget: Option<Duration>,
    /// Go on with a folder that has rows; what it holds is not measured again, but for energy that it lacks.
    #[arg(long)]
    pub resume: bool,
    /// Measure one part of several: 0/2 on one machine, 1/2 on another of its kind.
    #[arg(long, default_value = "0/1", value_name = "PART/PARTS", value_parser = crate::measure::profile::shard)]
    pub shard: (usize, usize),
    /// Movements of the energy counter that a region of energy lasts; at a card's power limit it lasts 10.
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = count(1, 1000))]
    pub ticks: usize,
    /// Measure nothing but how true the energy counter is, and write that to a CSV file.
    #[arg(long, value_name = "FILE")]
    pub check_energy: Option<PathBuf>,
}

/// What `profile` does besides measuring.
#[derive(Debug, Subcommand)]
pub enum ProfileAction {
    /// Put folders of rows together: shards, or further runs on machines of the same kind.
    #[command(after_help = "Example:\n  dualgrain profile merge shard0 shard1 --out h200")]
    Merge(ProfileMerge),
}

/// Options of `profile merge`.
#[derive(Debug, Args)]
pub struct ProfileMerge {
    /// Folders that `profile` wrote.
    #[arg(required = true, value_name = "DIRS")]
    pub folders: Vec<PathBuf>,
    /// New folder for all rows.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Leave out rows of kernels, or kernel/config, that begin so, separated by commas (gemm_w4a8_sm90/m16n448).
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub without: Vec<String>,
}
