//! What `bench serve` takes.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::arguments::values::{Replacing, count, positive, share};

/// Options of `bench serve`.
#[derive(Debug, Args)]
pub struct BenchServe {
    /// Where the server is, with or without a path: http://127.0.0.1:8080.
    #[arg(value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub url: String,
    /// Name of the model [default: the first that the server lists].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// Requests that are timed [default: four for each that runs at once, at least 16].
    #[arg(long, value_name = "COUNT", value_parser = count(1, 1 << 20))]
    pub requests: Option<usize>,
    /// Requests at once, separated by commas: the next is sent when one has ended.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "COUNTS", value_parser = count(1, 4096))]
    pub concurrency: Vec<usize>,
    /// Requests a second instead, separated by commas: they come at random moments, whoever has not ended yet.
    #[arg(long, value_delimiter = ',', value_name = "RATES", value_parser = positive, conflicts_with = "concurrency")]
    pub rate: Vec<f64>,
    /// Tokens of a prompt, about: random words, as many as the server's own count says.
    #[arg(short = 'p', long, default_value_t = 128, value_name = "TOKENS", value_parser = count(1, 1 << 20))]
    pub prompt_tokens: usize,
    /// Tokens of an answer; an end token does not end it where the server takes `ignore_eos`.
    #[arg(short = 'n', long, default_value_t = 128, value_name = "TOKENS", value_parser = count(1, 1 << 20))]
    pub generate_tokens: usize,
    /// Draw both lengths evenly from so much below to so much above: 0.5 for half to one and a half times.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = share)]
    pub spread: f64,
    /// Tokens that all prompts begin with, of --prompt-tokens; nothing else of a prompt comes twice.
    #[arg(long, default_value_t = 0, value_name = "TOKENS", value_parser = count(0, 1 << 20))]
    pub shared_prefix: usize,
    /// Ask /v1/chat/completions instead of /v1/completions.
    #[arg(long)]
    pub chat: bool,
    /// Temperature of the answers.
    #[arg(long, default_value_t = 0.0, value_name = "NUMBER")]
    pub temperature: f64,
    /// Requests with short answers before each measurement [default: as many as run at once, at most 64].
    #[arg(long, value_name = "COUNT", value_parser = count(0, 4096))]
    pub warmup: Option<usize>,
    /// File whose first line is the API key.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Count answers whose first token came within so many seconds as good.
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub slo_ttft: Option<f64>,
    /// Count answers with so many seconds between tokens, on average, or less as good.
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub slo_inter_token: Option<f64>,
    /// Seconds after which an answer is given up.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = count(1, 86_400))]
    pub timeout: usize,
    /// Seed of words, lengths and moments [default: another one every time, so that no cache holds the prompts].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the rows to this file as well, each as soon as it is measured.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
}
