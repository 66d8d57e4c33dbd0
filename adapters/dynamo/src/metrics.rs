//! What is counted, under the names that `dualgrain serve` gives it; `vllm:` where vLLM has the same thing.

use anyhow::{Context, Result};
use dualgrain::engine::FinishReason;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// Bounds of times until an answer begins or ends, in seconds.
const LONG_S: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];
/// Bounds of times between tokens, in seconds.
const SHORT_S: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Counters of a worker.
pub struct Metrics {
    registry: Registry,
    /// Sequences that run.
    pub num_running: IntGauge,
    /// Sequences that wait.
    pub num_waiting: IntGauge,
    /// Share of the cache's pages that running sequences hold.
    pub cache_usage: Gauge,
    /// Prompt tokens looked for in the cache.
    pub cache_queries: IntCounter,
    /// Prompt tokens found there.
    pub cache_hits: IntCounter,
    /// Sequences whose pages were taken.
    pub preemptions: IntCounter,
    /// Prompt tokens of sequences that began.
    pub prompt_tokens: IntCounter,
    /// Tokens generated.
    pub generated_tokens: IntCounter,
    /// Sequences that failed.
    pub failures: IntCounter,
    /// Requests that the frontend ended: a stop string came, or the client went away.
    pub ended_by_frontend: IntCounter,
    /// From submission to the first token.
    pub first_token_s: Histogram,
    /// From token to token.
    pub inter_token_s: Histogram,
    /// From submission to the end.
    pub request_s: Histogram,
    success: IntCounterVec,
}

impl Metrics {
    /// Nothing counted yet, for the model `name`.
    ///
    /// # Errors
    /// Two metrics of one name, which a test would find.
    pub fn new(name: &str) -> Result<Self> {
        let labels = [("model_name".to_owned(), name.to_owned())];
        let registry = Registry::new_custom(None, Some(labels.into_iter().collect()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let times = |name: &str, help: &str, bounds: &[f64]| {
            let times = Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))?;
            registry.register(Box::new(times.clone())).map(|()| times)
        };
        let (cache_usage, success) = labelled(&registry)?;
        Ok(Self {
            num_running: gauge("vllm:num_requests_running", "Sequences that run")?,
            num_waiting: gauge("vllm:num_requests_waiting", "Sequences that wait")?,
            cache_usage,
            cache_queries: counter(
                "vllm:prefix_cache_queries_total",
                "Prompt tokens looked for in the cache",
            )?,
            cache_hits: counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the cache")?,
            preemptions: counter("vllm:num_preemptions_total", "Sequences whose pages were taken")?,
            prompt_tokens: counter(
                "vllm:prompt_tokens_total",
                "Prompt tokens of sequences that began",
            )?,
            generated_tokens: counter("vllm:generation_tokens_total", "Tokens generated")?,
            failures: counter("dualgrain:failures_total", "Sequences that failed")?,
            ended_by_frontend: counter(
                "dualgrain:ended_by_frontend_total",
                "Requests that the frontend ended: a stop string came, or the client went away",
            )?,
            first_token_s: times(
                "vllm:time_to_first_token_seconds",
                "From submission to the first token",
                &LONG_S,
            )?,
            inter_token_s: times(
                "vllm:inter_token_latency_seconds",
                "From token to token",
                &SHORT_S,
            )?,
            request_s: times(
                "vllm:e2e_request_latency_seconds",
                "From submission to the end",
                &LONG_S,
            )?,
            success,
            registry,
        })
    }

    /// Counts a sequence that ended by itself.
    pub fn count_success(&self, reason: FinishReason) {
        let word = match reason {
            FinishReason::Eos | FinishReason::StopString => "stop",
            FinishReason::MaxTokens | FinishReason::Context => "length",
            FinishReason::Cancelled => "abort",
        };
        self.success.with_label_values(&[word]).inc();
    }

    /// Share of the prompts' tokens that were found in the cache; `None` before the first prompt.
    pub fn cache_hit_rate(&self) -> Option<f32> {
        let queries = self.cache_queries.get();
        (queries > 0).then(|| self.cache_hits.get() as f32 / queries as f32)
    }

    /// All of it in the text format of Prometheus.
    ///
    /// # Errors
    /// What can not be written as text.
    pub fn text(&self) -> Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).context("metrics as text")
    }
}

/// The share of the cache, and sequences that ended by how they did.
fn labelled(registry: &Registry) -> prometheus::Result<(Gauge, IntCounterVec)> {
    let cache_usage = Gauge::new(
        "vllm:kv_cache_usage_perc",
        "Share of the cache's pages that running sequences hold, 1 for all",
    )?;
    registry.register(Box::new(cache_usage.clone()))?;
    let success = Opts::new("vllm:request_success_total", "Sequences that ended by themselves");
    let success = IntCounterVec::new(success, &["finished_reason"])?;
    registry.register(Box::new(success.clone()))?;
    Ok((cache_usage, success))
}
