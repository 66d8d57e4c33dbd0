//! What `serve` takes.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use dualgrain::DeviceChoice;

use crate::cli::arguments::device::memory_share;
use crate::cli::arguments::values::count;

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// How much the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong here.
    Error,
    /// What may go wrong.
    Warn,
    /// Every request but those that only look.
    Info,
    /// Every request.
    Debug,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Folder of the model (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    pub host: String,
    /// Port to listen at; 0 takes any free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Name that clients call the model by [default: the folder's name].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub alias: Option<String>,
    /// File with one API key a line, of which a request must name one; without it everybody is let in.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificate to speak HTTPS with: PEM, the server's own first; needs --tls-key.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Origin whose pages may use the server from a browser, like https://chat.example; as often as needed.
    #[arg(long, value_name = "ORIGIN", value_parser = NonEmptyStringValueParser::new())]
    pub cors_origin: Vec<String>,
    /// Take keys over plain HTTP at an address that others can reach.
    #[arg(long)]
    pub insecure: bool,
    /// Name of a proxy by which requests may come beside localhost, where there are no keys and only this machine can connect.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub allow_host: Vec<String>,
    /// Sequences that run at once.
    #[arg(long, default_value_t = 8, value_name = "COUNT", value_parser = count(1, 4096))]
    pub max_sequences: usize,
    /// Tokens of a prompt and its answer together [default: 8192, or what the model has positions for].
    #[arg(long, value_name = "TOKENS", value_parser = count(2, 1 << 24))]
    pub context: Option<usize>,
    /// Tokens of a step while an answer streams, never fewer than --max-sequences: few keep streams even beside prompts, many
    /// serve prompts sooner [default: on a CPU 64 for each thread, at least 128, and one for each sequence, 512 in all; on a
    /// card 2048].
    #[arg(long, value_name = "TOKENS", value_parser = count(1, 1 << 20))]
    pub step_tokens: Option<usize>,
    /// Sequences that may wait beside those that run; a request beyond is answered 429.
    #[arg(long, default_value_t = 256, value_name = "COUNT", value_parser = count(0, 65_536))]
    pub queue: usize,
    /// Tokens of prompts that may wait; a request beyond is answered 429.
    #[arg(long, default_value_t = 1 << 20, value_name = "COUNT", value_parser = count(1, 1 << 40))]
    pub queue_tokens: usize,
    /// Seconds that a request may take in all [default: no limit]; a request may ask for less.
    #[arg(long, value_name = "SECONDS", value_parser = count(1, 1_000_000))]
    pub timeout: Option<usize>,
    /// Seconds that running answers may go on after Ctrl-C or a termination signal.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = count(0, 86_400))]
    pub drain: usize,
    /// Seconds that a step may take before /health says 503.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = count(1, 86_400))]
    pub stall: usize,
    /// Use nothing of the model's generation_config.json but its end tokens.
    #[arg(long)]
    pub ignore_defaults: bool,
    /// Pass over fields of requests that are unknown instead of refusing them.
    #[arg(long)]
    pub ignore_unknown: bool,
    /// Lines of the log, on stderr: text or json.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", hide_possible_values = true)]
    pub log_format: LogFormat,
    /// How much the log tells: off, error, warn, info (every request but those that only look) or debug.
    #[arg(long, value_enum, default_value_t = LogLevel::Info, value_name = "LEVEL", hide_possible_values = true)]
    pub log_level: LogLevel,
    /// Collector of OpenTelemetry that gets a span of every request, like http://127.0.0.1:4318 [default: what OTEL_EXPORTER_OTLP_ENDPOINT says].
    #[cfg(feature = "otel")]
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Write prompts and answers to the log.
    #[arg(long)]
    pub log_prompts: bool,
    /// Where the model runs: auto (the first NVIDIA card where the model fits it, else the CPU), cpu, or cuda:N.
    #[arg(long, default_value_t = DeviceChoice::Auto, value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Share of the device's free memory that model, cache and buffers may take together.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = memory_share)]
    pub memory: f64,
}
