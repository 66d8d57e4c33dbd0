//! What `generate` and `chat` take.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::arguments::device::OnDevice;
use crate::cli::arguments::values::{count, number, positive_probability, probability};

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Folder of the model (quantized or original).
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue; `-` reads it from standard input, as it is.
    #[arg(
        allow_hyphen_values = true,
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    pub prompt: Option<String>,
    /// File with the text to continue, as it is: an argument ends at 128 KiB, a file does not.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// With --json: log-probabilities of every token, and of this many of the most likely ones.
    #[arg(long, value_name = "COUNT", value_parser = count(0, 1000))]
    pub logprobs: Option<usize>,
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

/// How the next token is drawn. What is not given comes from the model's generation_config.json.
#[derive(Debug, Args)]
pub struct Sampling {
    /// 0 takes the most likely token every time [default: the model's, else 0].
    #[arg(long, value_parser = |text: &str| number(text, 0.0, 1e6).map(|n| n as f32))]
    pub temperature: Option<f32>,
    /// Only the K most likely tokens; 0 and -1 mean all [default: the model's, else all].
    #[arg(long, value_name = "K", value_parser = top_k)]
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach probability P [default: the model's, else 1].
    #[arg(long, value_name = "P", value_parser = positive_probability)]
    pub top_p: Option<f32>,
    /// Only tokens at least P times as likely as the best [default: the model's, else 0].
    #[arg(long, value_name = "P", value_parser = probability)]
    pub min_p: Option<f32>,
    /// Logits of tokens that occur already, in the prompt too, are divided by it (multiplied where they are negative) [default: the
    /// model's, else 1].
    #[arg(long, value_name = "FACTOR", value_parser = |text: &str| number(text, 1e-3, 1e3).map(|n| n as f32))]
    pub repetition_penalty: Option<f32>,
    /// Taken off the logit of a token that was generated.
    #[arg(long, default_value_t = 0.0, value_name = "LOGIT", value_parser = |text: &str| number(text, -100.0, 100.0).map(|n| n as f32))]
    pub presence_penalty: f32,
    /// Taken off the logit of a token for every time it was generated.
    #[arg(long, default_value_t = 0.0, value_name = "LOGIT", value_parser = |text: &str| number(text, -100.0, 100.0).map(|n| n as f32))]
    pub frequency_penalty: f32,
    /// Use nothing of the model's generation_config.json but its end tokens.
    #[arg(long)]
    pub ignore_defaults: bool,
    /// Seed of the random choice; the same seed gives the same text, -1 takes another one every time.
    #[arg(long, default_value = "0", value_parser = seed)]
    pub seed: u64,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 256, value_name = "COUNT", value_parser = count(1, 1 << 30))]
    pub max_tokens: usize,
    /// Tokens of a prompt and its answer together, of a whole conversation in chat [default: what is needed, in chat 8192; no more
    /// than the model has positions for].
    #[arg(long, value_name = "TOKENS", value_parser = count(2, 1 << 24))]
    pub context: Option<usize>,
    /// Text that ends the answer (may be given more than once); it may hold special tokens.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
}

/// Accepts whole numbers, and -1 for all tokens, as other programs write it.
fn top_k(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(0),
        _ => text
            .parse()
            .map_err(|_| "expected a whole number: how many tokens, or 0 or -1 for all".to_owned()),
    }
}

/// Accepts whole numbers from 0 on, and -1 for a seed that nobody chose.
fn seed(text: &str) -> Result<u64, String> {
    match text {
        "-1" => Ok(random_seed()),
        _ => text
            .parse()
            .map_err(|_| "expected a whole number from 0 on, or -1 for another one every time".to_owned()),
    }
}

/// A number that differs from run to run.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's tables are keyed by the system's random numbers. 53 bits, so that JSON tells it whole.
    std::hash::RandomState::new().build_hasher().finish() >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_means_what_it_means_elsewhere() {
        assert_eq!(top_k("-1"), Ok(0));
        assert_eq!(top_k("40"), Ok(40));
        assert!(top_k("-2").is_err() && top_k("1.5").is_err());
        assert_eq!(seed("7"), Ok(7));
        assert_ne!(seed("-1"), seed("-1"));
        assert!(seed("-2").unwrap_err().contains("-1"));
    }
}
