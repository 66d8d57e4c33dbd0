//! The command line: what each verb takes, its defaults, and an example in its help.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::arguments_perf::{Cost, Fit, Predict, Profile, Report, Select};
use crate::cli::gemm_shapes::{Shapes, shapes};

/// Quantizes, judges and runs language models with 4-bit weights and 8-bit activations.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Example:\n  dualgrain quickstart\n\nExit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted."
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Common {
    /// Print one JSON object on stdout instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// CPU threads; 0 takes all cores.
    #[arg(long, global = true, default_value_t = 0, value_name = "COUNT", value_parser = count(0, 1024))]
    pub threads: usize,
    /// Say more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Quantize, judge and run the bundled model: the whole story in about a minute.
    #[command(after_help = "Example:\n  dualgrain quickstart --out quickstart")]
    Quickstart(Quickstart),
    /// Turn a Hugging Face folder into a W4A8 folder.
    #[command(
        after_help = "Example:\n  dualgrain quantize Llama-3.2-1B --out Llama-3.2-1B-W4A8 --calib c4.txt\n  dualgrain quantize Llama-3.2-1B --out out --plan"
    )]
    Quantize(Quantize),
    /// Measure quality: perplexity, divergence from the original, tasks.
    #[command(
        after_help = "Example:\n  dualgrain eval out --reference Llama-3.2-1B --text wikitext2_test.txt\n  dualgrain eval out --tasks piqa.jsonl,winogrande.jsonl"
    )]
    Eval(Eval),
    /// Continue a prompt.
    #[command(
        after_help = "Example:\n  dualgrain generate out \"The sea was\" --temperature 0.8 --top-p 0.95 --seed 7"
    )]
    Generate(Generate),
    /// Talk to a model that has a chat template.
    #[command(after_help = "Example:\n  dualgrain chat out --temperature 0.7")]
    Chat(Chat),
    /// Show what a model folder holds.
    #[command(after_help = "Example:\n  dualgrain inspect out")]
    Inspect(Inspect),
    /// Time prefill and decoding, or single products on a GPU.
    #[command(
        after_help = "Example:\n  dualgrain bench out --prompt-tokens 128,512 --generate-tokens 64 --json\n  dualgrain bench gemm --m 1,64 --against cublas-bf16\n\nDUALGRAIN_BACKEND=NAME in the environment (portable, avx2, avxvnni, avx512vnni, amx) times other kernels than the fastest."
    )]
    Bench(Bench),
    /// Choose the configuration of a product by predicted time, energy or both; judge such choices.
    #[command(
        after_help = "Example:\n  dualgrain select --m 16 --n 4096 --k 4096 --by energy\n  dualgrain select --regret bench/data/h200 --json"
    )]
    Select(Select),
    /// Learn from measurements what products cost.
    #[command(
        after_help = "Example:\n  dualgrain fit bench/data/h200 --out h200.dgm\n  dualgrain fit --paper-log gpperf.csv --json"
    )]
    Fit(Fit),
    /// Measure what matrix products cost in time, power and energy, correctness first.
    #[command(
        after_help = "Example:\n  dualgrain profile --device cuda:0 --out h200 --budget 20m --resume\n  dualgrain profile --device cpu --kernels gemm_w4a8 --out cpu\n  dualgrain profile merge shard0 shard1 --out h200"
    )]
    Profile(Profile),
    /// Say what a product costs in time, power and energy, with an error bar; no GPU is needed.
    #[command(
        after_help = "Example:\n  dualgrain predict --m 16 --n 4096 --k 4096\n  dualgrain predict --m 4096 --n 57344 --k 8192 --kernel bf16 --group-size 0 --json"
    )]
    Predict(Predict),
    /// Say what a whole language model will cost on a machine: time to first token, tokens a second, joules a token, memory.
    #[command(
        after_help = "Example:\n  dualgrain cost Llama-3.2-1B --device h200 --batch 1,8,32 --prompt 512 --generate 64 --html cost.html\n  dualgrain cost config.json --device cpu --scheme bf16 --json"
    )]
    Cost(Cost),
    /// Draw what was measured and how well it is predicted, on one page that opens offline.
    #[command(
        after_help = "Example:\n  dualgrain report bench/data/h200 --out report.html\n  dualgrain report h200 --out model.html"
    )]
    Report(Report),
    /// Show what this machine offers and which kernels run on it.
    #[command(
        after_help = "Example:\n  dualgrain doctor\n\nDUALGRAIN_BACKEND=NAME in the environment makes every verb use one of the kernels listed."
    )]
    Doctor,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  dualgrain completions bash > /etc/bash_completion.d/dualgrain")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Options of `quickstart`.
#[derive(Debug, Args)]
pub struct Quickstart {
    /// Where both models and report.html go; results of an earlier quickstart are replaced, nothing else.
    #[arg(long, default_value = "quickstart", value_name = "DIR")]
    pub out: PathBuf,
    /// Another original model to tell the story of.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

/// Activation smoothing before quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Smooth {
    /// Divide channels above a percentile of the channel maxima (DGQ).
    Percentile,
    /// SmoothQuant: every channel by max|x|^alpha / max|w|^(1-alpha); an ablation.
    Alpha,
    /// None; an ablation.
    Off,
}

/// A producer that can take smoothing scales, and the linear they are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SmoothPair {
    /// The norm before attention.
    NormQkv,
    /// The norm before the feed-forward.
    NormUp,
    /// Rows of up_proj (or of fc1 before a ReLU) for the columns of down_proj.
    UpDown,
    /// Rows of v_proj for the columns of the attention's output projection.
    VOut,
}

/// How scales are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Search {
    /// Two-phase grid search; a low-rank screen picks the channel ratios that the full objective decides between.
    TwoPhase,
    /// Two-phase grid search over all 80 channel ratios.
    Exhaustive,
    /// Round to nearest; an ablation.
    Rtn,
}

/// Where activation scales come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Activations {
    /// One scale per token, computed while running.
    PerToken,
    /// One calibrated scale per layer.
    Static,
}

/// How keys and values are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kv {
    /// 8-bit integers, a scale per token and head.
    Int8,
    /// 8-bit integers, one calibrated scale per layer.
    Int8Static,
    /// 16-bit floats.
    F16,
}

/// Precision of the output layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LmHead {
    /// As in the original.
    Float,
    /// 8-bit integers, a scale per vocabulary entry.
    Int8,
    /// 4-bit weights, searched for as those of the blocks.
    W4a8,
}

/// Options of `quantize`.
#[derive(Debug, Args)]
pub struct Quantize {
    /// Folder of the original model (config.json, tokenizer, safetensors).
    #[arg(value_name = "MODEL_DIR")]
    pub model: PathBuf,
    /// Folder to write; must not exist, or be empty, unless --replace is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Calibration text (UTF-8). Without it the project's sample prose is used.
    #[arg(long, value_name = "FILE")]
    pub calib: Option<PathBuf>,
    /// Weights along K that share a group scale; `channel` means one scale a row (an ablation).
    #[arg(long, default_value = "128", value_parser = PossibleValuesParser::new(["32", "64", "128", "channel"]))]
    pub group_size: String,
    /// Activation smoothing.
    #[arg(long, value_enum, default_value_t = Smooth::Percentile)]
    pub smooth: Smooth,
    /// Percentile of the channel maxima that smoothing brings outliers down to; without it 99.5, or less for a layer
    /// that is clearly better off with less.
    #[arg(long, value_name = "P", value_parser = |text: &str| number(text, 0.0, 100.0))]
    pub percentile: Option<f64>,
    /// SmoothQuant's alpha, with `--smooth alpha` [default: 0.5].
    #[arg(long, value_parser = |text: &str| number(text, 0.0, 1.0))]
    pub alpha: Option<f64>,
    /// Which producers take the smoothing scales of which consumers.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "norm-qkv,norm-up,up-down",
        value_name = "PAIRS"
    )]
    pub smooth_pairs: Vec<SmoothPair>,
    /// How scales are found.
    #[arg(long, value_enum, default_value_t = Search::TwoPhase)]
    pub search: Search,
    /// Where activation scales come from.
    #[arg(long, value_enum, default_value_t = Activations::PerToken)]
    pub activations: Activations,
    /// How keys and values are cached.
    #[arg(long, value_enum, default_value_t = Kv::Int8)]
    pub kv: Kv,
    /// Precision of the output layer.
    #[arg(long, value_enum, default_value_t = LmHead::Int8)]
    pub lm_head: LmHead,
    /// Calibration windows, evenly spaced over the text.
    #[arg(long, default_value_t = 32, value_name = "COUNT", value_parser = count(1, 1 << 20))]
    pub windows: usize,
    /// Tokens in a calibration window [default: 1024, or what the model has positions for].
    #[arg(long, value_name = "TOKENS", value_parser = count(1, 1 << 20))]
    pub context: Option<usize>,
    /// Keep at most this much activation memory; more is spilled to disk.
    #[arg(long, default_value_t = 1.0, value_name = "GB", value_parser = |text: &str| number(text, 0.0, 1e6))]
    pub spill_above: f64,
    /// Say what the work will cost in memory, disk and time, and stop.
    #[arg(long)]
    pub plan: bool,
    /// Go on where an interrupted run with the same options stopped.
    #[arg(long)]
    pub resume: bool,
    /// Throw away what an interrupted run left.
    #[arg(long, conflicts_with = "resume")]
    pub restart: bool,
    /// Replace the output folder if it holds a model already.
    #[arg(long)]
    pub replace: bool,
}

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// Folder of the model to judge (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of the original, for KL divergence and top-1 agreement.
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
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Folder of the model (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
}

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Bench {
    /// Something other than a model.
    #[command(subcommand)]
    pub product: Option<BenchProduct>,
    /// Folder of the model (quantized or original).
    #[arg(value_name = "DIR", required = true)]
    pub model: Option<PathBuf>,
    /// Prompt lengths to time, separated by commas; 0 times decoding alone.
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512", value_name = "COUNTS", value_parser = count(0, 1 << 20))]
    pub prompt_tokens: Vec<usize>,
    /// Generation lengths to time, separated by commas; 0 times prompts alone.
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "64", value_name = "COUNTS", value_parser = count(0, 1 << 20))]
    pub generate_tokens: Vec<usize>,
    /// Sequences decoded together, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "COUNTS", value_parser = count(1, 1 << 20))]
    pub batch: Vec<usize>,
    /// Thread counts to time, separated by commas (default: --threads).
    #[arg(short = 't', long, value_delimiter = ',', value_name = "COUNTS", value_parser = count(1, 1024))]
    pub thread_counts: Vec<usize>,
    /// Timed rounds after one to warm up; medians are shown.
    #[arg(short = 'r', long, default_value_t = 5, value_name = "COUNT", value_parser = count(1, 1 << 20))]
    pub repeat: usize,
    /// Write the rows to this file as well, each as soon as it is measured.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
}

/// What `bench` times besides models.
#[derive(Debug, Subcommand)]
pub enum BenchProduct {
    /// W4A8 matrix products on a GPU: correctness first, then times beside NVIDIA's libraries.
    #[command(
        after_help = "Example:\n  dualgrain bench gemm --shapes llama-7b,8192x8192 --m 1,16,256 --against cublas-bf16,cublas-int8 --csv gemm.csv"
    )]
    Gemm(BenchGemm),
}

/// A product to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rival {
    /// cuBLAS with bf16 weights and activations.
    CublasBf16,
    /// cuBLASLt with int8 weights and activations, int32 outputs; where it has no algorithm, for tokens rounded up to 16.
    CublasInt8,
}

/// Type of the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputKind {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
}

/// Options of `bench gemm`.
#[derive(Debug, Args)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub struct BenchGemm {
    /// Weights to time: llama-7b, llama-70b, single products of theirs (7B.o), or NxK; separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "llama-7b,llama-70b",
        value_name = "SHAPES",
        value_parser = shapes
    )]
    pub shapes: Vec<Shapes>,
    /// Numbers of tokens, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1024,4096", value_name = "COUNTS", value_parser = count(1, 1 << 20))]
    pub m: Vec<usize>,
    /// What to compare with, in the same run.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "RIVALS")]
    pub against: Vec<Rival>,
    /// Weights along K that share a group scale; `channel` means one scale a row.
    #[arg(long, default_value = "128", value_parser = PossibleValuesParser::new(["32", "64", "128", "channel"]))]
    pub group_size: String,
    /// Type of the outputs.
    #[arg(long, value_enum, default_value_t = OutputKind::Bf16)]
    pub output: OutputKind,
    /// Time every configuration that is worth a thought, not the chosen one alone.
    #[arg(long)]
    pub all_configs: bool,
    /// Time groups of 128 beside one scale a channel and beside float group scales, in turn, instead.
    #[arg(long, conflicts_with_all = ["against", "peers", "all_configs", "group_size"])]
    pub grains: bool,
    /// Launch plainly: no kernel begins before the one before it has ended.
    #[arg(long)]
    pub no_overlap: bool,
    /// Repetitions; the median and the least are recorded.
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = count(1, 1000))]
    pub repeat: usize,
    /// Write all rows to this file.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Compare with kernels timed elsewhere: a CSV with columns shape, m, bf16_us and others in _us; needs cublas-bf16.
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// Which card.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    pub device: usize,
}

/// Accepts whole numbers from `least` to `most`.
pub(crate) fn count(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

/// Accepts finite numbers from `least` to `most`.
pub(crate) fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

fn positive_probability(text: &str) -> Result<f32, String> {
    match probability(text) {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}

fn probability(text: &str) -> Result<f32, String> {
    number(text, 0.0, 1.0).map(|number| number as f32)
}
