//! What `bench` and `bench gemm` take; `bench serve` has a file of its own.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use dualgrain::format::GroupSize;

use crate::cli::arguments::bench_serve::BenchServe;
use crate::cli::arguments::device::OnDevice;
use crate::cli::arguments::shapes::{Shapes, shapes};
use crate::cli::arguments::values::{Replacing, count, group_size};

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
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
    /// Where it runs.
    #[command(flatten)]
    pub device: OnDevice,
}

/// What `bench` times besides models.
#[derive(Debug, Subcommand)]
pub enum BenchProduct {
    /// W4A8 matrix products on a GPU: correctness first, then times beside NVIDIA's libraries.
    #[command(
        after_help = "Example:\n  dualgrain bench gemm --shapes llama-7b,8192x8192 --m 1,16,256 --against cublas-bf16,cublas-int8 --csv gemm.csv"
    )]
    Gemm(BenchGemm),
    /// A server, this one or any other that OpenAI's clients speak to: times to the first token, between tokens and to the end.
    #[command(
        after_help = "Example:\n  dualgrain serve out --max-sequences 16 &\n  dualgrain bench serve http://127.0.0.1:8080 --concurrency 1,16 --prompt-tokens 512 --generate-tokens 128 --csv serve.csv\n  dualgrain bench serve http://127.0.0.1:8080 --rate 2,4,8 --spread 0.5 --slo-ttft 0.5 --slo-inter-token 0.05"
    )]
    Serve(BenchServe),
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
    #[arg(long, default_value = "128", value_parser = group_size())]
    pub group_size: GroupSize,
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
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
    /// Compare with kernels timed elsewhere: a CSV with columns shape, m, bf16_us and others in _us; needs cublas-bf16.
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// Which card.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    pub device: usize,
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
