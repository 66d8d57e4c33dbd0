//! Timing one combination of batch, prompt and generated tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use dualgrain_cpu::CpuDevice;
use dualgrain_device::Device;
use dualgrain_engine::{Model, ModelConfig, Product, Session, SessionLimits, products};
use serde::{Serialize, Serializer};

use crate::cli::units::bytes;
use crate::measure::machine;

/// Tokens of a prompt that are run in one step.
const STEP_TOKENS: usize = 512;

/// One combination to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each prompt; 0 times decoding alone.
    pub prompt_tokens: usize,
    /// Tokens generated after each; 0 times prompts alone.
    pub generate_tokens: usize,
}

/// Tokens per second of all rounds.
#[derive(Debug, Clone)]
pub struct Rate {
    /// In the order they were measured.
    pub samples: Vec<f64>,
    /// The middle one.
    pub median: f64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (of a sample: by n - 1).
    pub stddev: f64,
}

/// Measured speeds of one combination.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Threads that worked.
    pub threads: usize,
    /// Sequences.
    pub batch: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens generated after each.
    pub generate_tokens: usize,
    /// Timed rounds.
    pub rounds: usize,
    /// Prompt tokens per second, all sequences together.
    #[serde(flatten, serialize_with = "prefill")]
    pub prefill: Option<Rate>,
    /// Generated tokens per second, all sequences together.
    #[serde(flatten, serialize_with = "decode")]
    pub decode: Option<Rate>,
    /// Operations of the linears' products a second while prompts run; a multiply-add is two.
    pub prefill_ops_per_s: Option<f64>,
    /// These by what the registers alone can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_share_of_peak: Option<f64>,
    /// Bytes of packed linears read a second while tokens are generated.
    pub decode_read_bytes_per_s: Option<f64>,
    /// These by what reading memory alone can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_share_of_read: Option<f64>,
    /// Whether the packed linears are smaller than the last-level cache: memory then bounds nothing.
    pub linears_fit_cache: bool,
    /// Keys and values.
    pub cache_bytes: usize,
    /// Seconds from the folder to a model that can run.
    pub load_s: f64,
}

impl Case {
    fn limits(&self) -> SessionLimits {
        SessionLimits {
            num_sequences: self.batch,
            context_tokens: self.prompt_tokens + self.generate_tokens,
            step_tokens: STEP_TOKENS.max(self.batch),
        }
    }

    /// Refuses what the model can not do, before anything is loaded.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let (prompt, generate) = (self.prompt_tokens, self.generate_tokens);
        ensure!(
            prompt + generate > 0,
            "0 prompt and 0 generated tokens leave nothing to time"
        );
        ensure!(
            prompt + generate <= config.max_positions,
            "{prompt} prompt and {generate} generated tokens do not fit the model's {} positions",
            config.max_positions
        );
        Ok(())
    }

    /// Refuses what does not fit memory beside the model, instead of being killed by the system half-way.
    pub fn check_memory(&self, model: &Model<CpuDevice>) -> Result<()> {
        let limits = self.limits();
        let needed = Session::required_bytes(model, limits).unwrap_or(u64::MAX);
        if let Some(memory) = machine::memory() {
            ensure!(
                needed <= memory.available_bytes,
                "batch {} with {} tokens each needs {} beside the model, {} are free: take a smaller --batch",
                limits.num_sequences,
                limits.context_tokens,
                bytes(needed),
                bytes(memory.available_bytes)
            );
        }
        Ok(())
    }

    /// In words.
    pub fn text(&self) -> String {
        format!(
            "batch {}, {} prompt and {} generated tokens",
            self.batch, self.prompt_tokens, self.generate_tokens
        )
    }
}

impl Row {
    /// In a line, for the person who watches.
    pub fn text(&self) -> String {
        let rate = |rate: &Option<Rate>, what: &str| {
            rate.as_ref().map_or(String::new(), |rate| {
                let spread = 100.0 * rate.stddev / rate.mean;
                format!(", {what} {:.1} +- {spread:.0} % tokens/s", rate.median)
            })
        };
        format!(
            "{} threads, batch {}, {}+{} tokens{}{}",
            self.threads,
            self.batch,
            self.prompt_tokens,
            self.generate_tokens,
            rate(&self.prefill, "prefill"),
            rate(&self.decode, "decode")
        )
    }
}

/// One warm-up and `repeat` timed rounds; `None` when `interrupted` was raised before they were done.
pub fn time_case(
    model: &Arc<Model<CpuDevice>>,
    case: &Case,
    repeat: usize,
    interrupted: &AtomicBool,
) -> Result<Option<Row>> {
    case.check(model.config())?;
    case.check_memory(model)?;
    let mut session = Session::new(Arc::clone(model), case.limits())?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..=repeat {
        let Some((prefill_s, decode_s)) = time_round(&mut session, case, model, interrupted)? else {
            return Ok(None);
        };
        if round > 0 {
            prefill.push((case.batch * case.prompt_tokens) as f64 / prefill_s);
            decode.push((case.batch * case.generate_tokens) as f64 / decode_s);
        }
    }
    let prefill = (case.prompt_tokens > 0).then(|| Rate::of(prefill));
    let decode = (case.generate_tokens > 0).then(|| Rate::of(decode));
    let per_s = |rate: &Option<Rate>| rate.as_ref().map(|rate| rate.median);
    // A step reads every linear once, whatever the batch.
    let read_per_token = model.linear_bytes() as f64 / case.batch as f64;
    Ok(Some(Row {
        threads: model.device().num_threads(),
        batch: case.batch,
        prompt_tokens: case.prompt_tokens,
        generate_tokens: case.generate_tokens,
        rounds: repeat,
        prefill_ops_per_s: per_s(&prefill).map(|rate| rate * ops_per_token(model, case.prompt_tokens)),
        prefill_share_of_peak: None,
        decode_read_bytes_per_s: per_s(&decode).map(|rate| rate * read_per_token),
        decode_share_of_read: None,
        prefill,
        decode,
        linears_fit_cache: machine::last_level_cache_bytes()
            .is_some_and(|cache| model.linear_bytes() < cache),
        cache_bytes: session.memory().cache_bytes,
        load_s: 0.0,
    }))
}

/// Operations of the linears' products for each token of a prompt; the head runs on its last token only.
fn ops_per_token(model: &Model<CpuDevice>, prompt_tokens: usize) -> f64 {
    let weights = |product: &Product| {
        let weights = (product.count * product.shape.n * product.shape.k) as f64;
        match product.name {
            "head" => weights / prompt_tokens as f64,
            _ => weights,
        }
    };
    2.0 * products(model.config(), 1).iter().map(weights).sum::<f64>()
}

/// Seconds for all prompts, and for all generated tokens; logits are computed once a prompt and once a step.
fn time_round(
    session: &mut Session<CpuDevice>,
    case: &Case,
    model: &Model<CpuDevice>,
    interrupted: &AtomicBool,
) -> Result<Option<(f64, f64)>> {
    let vocab = model.config().vocab_size as u32;
    let token = |sequence: usize, position: usize| {
        (sequence as u32)
            .wrapping_mul(7919)
            .wrapping_add((position as u32).wrapping_mul(104_729))
            % vocab
    };
    let started = Instant::now();
    for sequence in 0..case.batch {
        session.reset(sequence);
        let prompt: Vec<u32> = (0..case.prompt_tokens)
            .map(|position| token(sequence, position))
            .collect();
        if !prompt.is_empty() {
            let last = session.prefill(sequence, &prompt)?;
            session.logits(&[last])?;
        }
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    let prefill_s = started.elapsed().as_secs_f64();
    let rows: Vec<u32> = (0..case.batch as u32).collect();
    let started = Instant::now();
    for position in 0..case.generate_tokens {
        let tokens: Vec<u32> = (0..case.batch)
            .map(|sequence| token(sequence, position))
            .collect();
        let batch: Vec<(usize, &[u32])> = tokens.iter().map(std::slice::from_ref).enumerate().collect();
        session.run(&batch)?;
        session.logits(&rows)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    Ok(Some((prefill_s, started.elapsed().as_secs_f64())))
}

impl Rate {
    fn of(samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        Self {
            median: quantile(&sorted, 0.5),
            mean,
            stddev: (squares / (count - 1.0).max(1.0)).sqrt(),
            samples,
        }
    }

    /// (third quartile - first quartile) / median.
    fn spread(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / self.median
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// `prefill_tokens_per_s` (the median) and so on, null where no prompt was run.
fn prefill<S: Serializer>(rate: &Option<Rate>, serializer: S) -> Result<S::Ok, S::Error> {
    fields(
        rate,
        [
            "prefill_tokens_per_s",
            "prefill_mean",
            "prefill_stddev",
            "prefill_spread",
            "prefill_samples",
        ],
        serializer,
    )
}

fn decode<S: Serializer>(rate: &Option<Rate>, serializer: S) -> Result<S::Ok, S::Error> {
    fields(
        rate,
        [
            "decode_tokens_per_s",
            "decode_mean",
            "decode_stddev",
            "decode_spread",
            "decode_samples",
        ],
        serializer,
    )
}

fn fields<S: Serializer>(
    rate: &Option<Rate>,
    [median, mean, stddev, spread, samples]: [&'static str; 5],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(None)?;
    let rate = rate.as_ref();
    map.serialize_entry(median, &rate.map(|rate| rate.median))?;
    map.serialize_entry(mean, &rate.map(|rate| rate.mean))?;
    map.serialize_entry(stddev, &rate.map(|rate| rate.stddev))?;
    map.serialize_entry(spread, &rate.map(Rate::spread))?;
    map.serialize_entry(samples, &rate.map(|rate| &rate.samples))?;
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_median_mean_and_deviation_of_their_samples() {
        let rate = Rate::of(vec![4.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!((rate.median, rate.mean), (2.0, 2.0));
        assert!((rate.stddev - 1.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(rate.spread(), 0.5);
        assert_eq!(Rate::of(vec![3.0]).stddev, 0.0);
    }
}
