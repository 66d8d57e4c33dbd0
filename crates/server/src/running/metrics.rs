//! What is counted and timed, under the names that dashboards of vLLM read.

use std::sync::atomic::AtomicU64;

use dualgrain::FinishReason;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

type Labels = [(&'static str, &'static str); 1];

/// Upper bounds of times to the first token and of whole requests, in seconds.
const LONG_S: [f64; 15] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.0, 10.0, 40.0, 160.0,
];
/// Upper bounds of times between tokens, in seconds.
const SHORT_S: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// All that is counted and timed. Counters only rise.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Sequences that run.
    pub num_running: Gauge,
    /// Sequences that wait for room.
    pub num_waiting: Gauge,
    /// Tokens of their prompts.
    pub num_waiting_tokens: Gauge,
    /// Share of the cache's pages that running sequences hold.
    pub cache_usage: Gauge<f64, AtomicU64>,
    /// Prompt tokens that were looked for in the cache.
    pub cache_queries: Counter,
    /// Prompt tokens that were found there.
    pub cache_hits: Counter,
    /// Sequences whose pages were taken.
    pub preemptions: Counter,
    /// From submission to the first token, in seconds.
    pub first_token_s: Histogram,
    /// From token to token, in seconds.
    pub inter_token_s: Histogram,
    /// From submission to the end, in seconds.
    pub request_s: Histogram,
    /// Prompt tokens of sequences that began.
    pub prompt_tokens: Counter,
    /// Tokens generated.
    pub generated_tokens: Counter,
    /// Joules of steps.
    pub energy_j: Counter<f64, AtomicU64>,
    /// Sequences that failed.
    pub failures: Counter,
    /// Jobs whose reader went away.
    pub abandoned: Counter,
    /// Jobs whose reader was too slow.
    pub slow_readers: Counter,
    /// Jobs whose time was over.
    pub timeouts: Counter,
    /// Jobs that other requests ended.
    pub cancelled: Counter,
    /// Connections that are open.
    pub connections: Gauge,
    success: Family<Labels, Counter>,
}

impl Metrics {
    /// Nothing counted yet, for the model `alias`.
    pub fn new(alias: &str) -> Self {
        let labels = [("model_name".into(), escaped(alias).into())];
        let mut metrics = Self {
            registry: Registry::with_labels(labels.into_iter()),
            num_running: Gauge::default(),
            num_waiting: Gauge::default(),
            num_waiting_tokens: Gauge::default(),
            cache_usage: Gauge::default(),
            cache_queries: Counter::default(),
            cache_hits: Counter::default(),
            preemptions: Counter::default(),
            first_token_s: Histogram::new(LONG_S),
            inter_token_s: Histogram::new(SHORT_S),
            request_s: Histogram::new(LONG_S),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            energy_j: Counter::default(),
            failures: Counter::default(),
            abandoned: Counter::default(),
            slow_readers: Counter::default(),
            timeouts: Counter::default(),
            cancelled: Counter::default(),
            connections: Gauge::default(),
            success: Family::default(),
        };
        metrics.register();
        metrics
    }

    /// Counts a sequence that ended by itself.
    pub fn count_success(&self, reason: FinishReason) {
        let labels = [("finished_reason", reason_word(reason))];
        self.success.get_or_create(&labels).inc();
    }

    /// All of it in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => unreachable!("a string takes everything"),
        }
    }

    fn register(&mut self) {
        self.register_counters();
        self.register_gauges();
        self.register_times();
    }

    fn register_counters(&mut self) {
        let all = [
            (
                "vllm:num_preemptions",
                "Sequences whose pages were taken",
                &self.preemptions,
            ),
            (
                "vllm:prefix_cache_queries",
                "Prompt tokens looked for in the cache",
                &self.cache_queries,
            ),
            (
                "vllm:prefix_cache_hits",
                "Prompt tokens found in the cache",
                &self.cache_hits,
            ),
            (
                "vllm:prompt_tokens",
                "Prompt tokens of sequences that began",
                &self.prompt_tokens,
            ),
            (
                "vllm:generation_tokens",
                "Tokens generated",
                &self.generated_tokens,
            ),
            ("dualgrain:failures", "Sequences that failed", &self.failures),
            (
                "dualgrain:abandoned",
                "Requests whose reader went away",
                &self.abandoned,
            ),
            (
                "dualgrain:slow_readers",
                "Requests whose reader was too slow",
                &self.slow_readers,
            ),
            (
                "dualgrain:timeouts",
                "Requests whose time was over",
                &self.timeouts,
            ),
        ];
        for (name, help, counter) in all {
            self.registry.register(name, help, counter.clone());
        }
        let cancelled = self.cancelled.clone();
        let help = "Requests that other requests ended";
        self.registry.register("dualgrain:cancelled", help, cancelled);
        let energy = self.energy_j.clone();
        let help = "Joules of steps, where a counter of energy can be read";
        self.registry
            .register_with_unit("dualgrain:energy", help, Unit::Joules, energy);
        let success = self.success.clone();
        let help = "Sequences that ended by themselves";
        self.registry.register("vllm:request_success", help, success);
    }

    fn register_gauges(&mut self) {
        let all = [
            (
                "vllm:num_requests_running",
                "Sequences that run",
                &self.num_running,
            ),
            (
                "vllm:num_requests_waiting",
                "Sequences that wait",
                &self.num_waiting,
            ),
            (
                "dualgrain:waiting_tokens",
                "Tokens of prompts that wait",
                &self.num_waiting_tokens,
            ),
            (
                "dualgrain:connections",
                "Connections that are open",
                &self.connections,
            ),
        ];
        for (name, help, gauge) in all {
            self.registry.register(name, help, gauge.clone());
        }
        let help = "Share of the cache's pages that running sequences hold, 1 for all";
        let usage = self.cache_usage.clone();
        self.registry.register("vllm:kv_cache_usage_perc", help, usage);
    }

    fn register_times(&mut self) {
        let all = [
            (
                "vllm:time_to_first_token_seconds",
                "From submission to the first token",
                &self.first_token_s,
            ),
            (
                "vllm:inter_token_latency_seconds",
                "From token to token",
                &self.inter_token_s,
            ),
            (
                "vllm:e2e_request_latency_seconds",
                "From submission to the end",
                &self.request_s,
            ),
        ];
        for (name, help, times) in all {
            self.registry.register(name, help, times.clone());
        }
    }
}

/// One word for the end of a sequence.
pub fn reason_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos | FinishReason::StopString => "stop",
        FinishReason::MaxTokens | FinishReason::Context => "length",
        FinishReason::Cancelled => "abort",
    }
}

/// The encoder writes labels as they are; these characters would end one.
fn escaped(label: &str) -> String {
    let label = label.replace('\\', r"\\").replace('"', r#"\""#);
    label.replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_model_ends_its_label() {
        let text = Metrics::new("a\\b\"} 1\nc").text();
        let label = r#"model_name="a\\b\"} 1\nc""#;
        let mut samples = text.lines().filter(|line| !line.starts_with('#'));
        assert!(samples.all(|line| line.contains(label)), "{text}");
    }
}
