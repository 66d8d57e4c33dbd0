//! What `quantize` and `quickstart` take, `pull`, which may come before them, and `export`, which may come after.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dualgrain::DeviceChoice;
use dualgrain::format::GroupSize;
use dualgrain::quant::{SchemeRule, Step};
use dualgrain_hub::{ModelName, Revision};

use crate::cli::arguments::device::OnDevice;
use crate::cli::arguments::values::{count, group_size, number};

/// Options of `pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// The model's name on the hub.
    #[arg(value_name = "ORG/NAME")]
    pub model: ModelName,
    /// A branch, a tag or a commit [default: main].
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<Revision>,
    /// Ask the cache alone, as with HF_HUB_OFFLINE=1.
    #[arg(long)]
    pub offline: bool,
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
    /// Where the model is quantized and both models run.
    #[command(flatten)]
    pub device: OnDevice,
}

/// Options of `quantize`.
#[derive(Debug, Args)]
pub struct Quantize {
    /// Folder of the original model (config.json, tokenizer, safetensors), or its name on the Hugging Face hub, ORG/NAME, which is
    /// downloaded where the cache does not have it.
    #[arg(value_name = "MODEL_DIR")]
    pub model: PathBuf,
    /// Folder to write; must not exist, or be empty, unless --replace is given.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Calibration text: UTF-8, or JSONL (a name that ends in .jsonl) with a document in the field `text` of each line. May be
    /// given several times. Without it the project's sample prose is used.
    #[arg(long, value_name = "FILE")]
    pub calib: Vec<PathBuf>,
    /// Where it is calibrated: auto, cpu, or cuda:N. The result is the same, to the byte.
    #[arg(long, default_value_t = DeviceChoice::Cpu, value_name = "DEVICE", conflicts_with = "plan")]
    pub device: DeviceChoice,
    /// Weights along K that share a group scale; `channel` means one scale a row (an ablation).
    #[arg(long, default_value = "128", value_parser = group_size())]
    pub group_size: GroupSize,
    /// Another scheme for some linears of the blocks (qkv, out, up or down): `down=w8` for all blocks, `3.down=w4/32` for
    /// block 3; schemes are float, w8, w4/32, w4/64, w4/128 and w4/channel. May be given several times; the last one
    /// that fits a linear counts.
    #[arg(long, value_name = "LINEAR=SCHEME")]
    pub scheme: Vec<SchemeRule>,
    /// Bits a weight that the blocks' linears may take (from about 4.1, up to 8.1): each linear that --scheme does not name gets 4 bits in groups of
    /// 128, 64 or 32, or 8 bits, by what rounding it does to predictions on text between the calibration windows.
    #[arg(long, value_name = "BITS", conflicts_with = "group_size", value_parser = |text: &str| number(text, 4.0, 9.0))]
    pub bits: Option<f64>,
    /// Rotate the residual stream and the value heads, so that no channel stands out: the rotation is folded into the
    /// weights, and the model computes the same function. Llama, Mistral, Qwen, SmolLM3 and mixtures of experts only.
    #[arg(long)]
    pub rotate: bool,
    /// Transform the input of down_proj (fc2) while the model runs, by Hadamard matrices, so that its outliers are spread. The
    /// folder needs this version of dualgrain or a later one.
    #[arg(long)]
    pub hadamard_down: bool,
    /// Activation smoothing [default: percentile, or off with --rotate].
    #[arg(long, value_enum)]
    pub smooth: Option<Smooth>,
    /// Percentile of the channel maxima that smoothing brings outliers down to; without it 99.5, or less for a layer
    /// that is clearly better off with less.
    #[arg(long, value_name = "P", value_parser = |text: &str| number(text, 0.0, 100.0))]
    pub percentile: Option<f64>,
    /// SmoothQuant's alpha, with `--smooth alpha` [default: 0.5].
    #[arg(long, value_parser = |text: &str| number(text, 0.0, 1.0))]
    pub alpha: Option<f64>,
    /// Which producers take the smoothing scales of which consumers [default: norm-qkv,norm-up,up-down].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PAIRS")]
    pub smooth_pairs: Vec<SmoothPair>,
    /// How scales and codes are found.
    #[arg(long, visible_alias = "method", value_enum, default_value_t = Search::Compensate)]
    pub search: Search,
    /// Steps of `compensate` that are left out, separated by commas (an ablation).
    #[arg(long, value_delimiter = ',', value_name = "STEPS", hide = true)]
    pub without: Vec<Step>,
    /// Where activation scales come from.
    #[arg(long, value_enum, default_value_t = Activations::PerToken)]
    pub activations: Activations,
    /// How keys and values are cached.
    #[arg(long, value_enum, default_value_t = Kv::Int8)]
    pub kv: Kv,
    /// Precision of the output layer.
    #[arg(long, value_enum, default_value_t = LmHead::Int8)]
    pub lm_head: LmHead,
    /// Calibration windows, evenly spaced over all text [default: 128 for compensate, 32 for the other methods; fewer where
    /// the text is short].
    #[arg(long, value_name = "COUNT", value_parser = count(1, 1 << 20))]
    pub windows: Option<usize>,
    /// Tokens in a calibration window [default: 1024, or what the model has positions for].
    #[arg(long, value_name = "TOKENS", value_parser = count(1, 1 << 20))]
    pub context: Option<usize>,
    /// Keep at most this much activation memory; more is spilled to disk.
    #[arg(long, default_value_t = 1.0, value_name = "GB", value_parser = |text: &str| number(text, 0.0, 1e6))]
    pub spill_above: f64,
    /// Say what the work will cost in memory, disk and time on the CPU, and stop.
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

/// Options of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Folder of the quantized model; for gguf also of one that is not quantized.
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// What it is written as.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Folder to write; must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Formats of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A Hugging Face folder in bf16, for everything that runs the original.
    Hf,
    /// 4-bit weights and INT8 activations, for vLLM.
    CompressedTensors,
    /// 4-bit weights and 16-bit activations, for vLLM and transformers.
    CompressedTensorsW4a16,
    /// A file for llama.cpp: Q4_1, and Q8_0 for what has 8 bits. Llama, Mistral, Qwen2, Qwen3, and the mixtures
    /// Mixtral, Qwen2-MoE and Qwen3-MoE.
    Gguf,
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
    /// The two-phase search, then codes that make up for each other's rounding, and with 128 windows for what was quantized
    /// before them.
    Compensate,
    /// The two-phase grid search alone, as DGQ has it; a low-rank screen picks the channel ratios that the full objective decides between.
    #[value(alias = "dgq")]
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
