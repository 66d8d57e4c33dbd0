//! What a card adds to speeds: energy a token, and how far the speeds are from what the card's ceilings allow.

use std::time::Instant;

use dualgrain::AnyDevice;
use dualgrain::engine::{Model, products};
#[cfg(feature = "cuda")]
use dualgrain_perf::CounterLog;

use crate::run::bench::case::Case;

/// A card's energy counter and its ceilings, as far as they are known.
#[derive(Default)]
pub struct CardMeter {
    #[cfg(feature = "cuda")]
    counter: Option<CounterLog>,
    ceilings: Option<Ceilings>,
}

/// Rates that nothing on the card exceeds.
#[derive(Debug, Clone, Copy)]
struct Ceilings {
    read_bytes_per_s: f64,
    /// Of the unit that runs the products.
    ops_per_s: f64,
}

/// A span of time in which one thing ran.
pub type Span = (Instant, Instant);

impl CardMeter {
    /// Of the device; knows nothing where that is no card. `is_quantized`: the products run on integers.
    pub fn new(device: &AnyDevice, is_quantized: bool) -> Self {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = device.gpu() {
            let info = gpu.info();
            let card = dualgrain_cuda::Nvml::open().and_then(|nvml| nvml.device(info));
            let known = dualgrain_perf::Model::shipped_for(&info.name, info.num_sms);
            return Self {
                counter: card.ok().as_ref().and_then(CounterLog::start),
                ceilings: known.map(|known| Ceilings {
                    read_bytes_per_s: known.machine().read_bytes_per_s,
                    ops_per_s: match is_quantized {
                        true => known.machine().int8_ops_per_s,
                        // Sums of floats are chains of multiply-adds in one order.
                        false => known.machine().float_ops_per_s,
                    },
                }),
            };
        }
        let _ = (device, is_quantized);
        Self::default()
    }

    /// Mean power of the spans that are long enough to have one, watts.
    pub fn power_w(&self, spans: &[Span]) -> Option<f64> {
        let powers: Vec<f64> = spans.iter().filter_map(|span| self.power_of(span)).collect();
        (!powers.is_empty()).then(|| powers.iter().sum::<f64>() / powers.len() as f64)
    }

    #[cfg(feature = "cuda")]
    fn power_of(&self, &(start, end): &Span) -> Option<f64> {
        self.counter.as_ref()?.mean_power_w(start, end)
    }

    #[cfg(not(feature = "cuda"))]
    fn power_of(&self, _span: &Span) -> Option<f64> {
        None
    }

    /// The least seconds that the ceilings allow for all prompts of a case: products, then attention.
    pub fn least_prefill_s(&self, model: &Model<AnyDevice>, case: &Case) -> Option<f64> {
        let ceilings = self.ceilings?;
        let tokens = (case.batch * case.prompt_tokens) as f64;
        let products = ceilings.least_s(
            model.bytes_read(case.batch * case.prompt_tokens),
            tokens * ops_per_token(model, case.prompt_tokens),
        );
        let pairs = case.batch as f64 * seen_positions(model, 0, case.prompt_tokens);
        Some(products + ceilings.least_s(0.0, attention_ops(model, pairs)))
    }

    /// The same for one decoding step, in the middle of those of the case.
    pub fn least_step_s(&self, model: &Model<AnyDevice>, case: &Case) -> Option<f64> {
        let ceilings = self.ceilings?;
        let batch = case.batch as f64;
        let products = ceilings.least_s(model.bytes_read(case.batch), batch * ops_per_token(model, 1));
        let middle = case.prompt_tokens + case.generate_tokens / 2;
        let pairs = batch * seen_positions(model, middle, middle + 1);
        let config = model.config();
        let token_bytes = model
            .cache_format()
            .bytes_per_token(config.num_kv_heads, config.head_dim);
        let attention = ceilings.least_s(pairs * token_bytes as f64, attention_ops(model, pairs));
        Some(products + attention)
    }
}

impl Ceilings {
    fn least_s(&self, bytes: f64, ops: f64) -> f64 {
        (bytes / self.read_bytes_per_s).max(ops / self.ops_per_s)
    }
}

/// Operations of the linears' products for each token of a prompt; the head runs on its last token only. A multiply-add is two.
pub fn ops_per_token(model: &Model<AnyDevice>, prompt_tokens: usize) -> f64 {
    let weights = products(model.config(), 1).into_iter().map(|product| {
        let weights = product.multiply_adds();
        match product.name {
            "head" => weights / prompt_tokens as f64,
            _ => weights,
        }
    });
    2.0 * weights.sum::<f64>()
}

/// Positions that queries at `first..last` see, all layers together.
fn seen_positions(model: &Model<AnyDevice>, first: usize, last: usize) -> f64 {
    let of_layer = |window: &Option<usize>| -> usize {
        let most = window.unwrap_or(usize::MAX);
        (first..last).map(|position| (position + 1).min(most)).sum()
    };
    model.config().sliding_windows.iter().map(of_layer).sum::<usize>() as f64
}

/// For every pair of a query and a key two operations an element for the score, and two for the sum.
fn attention_ops(model: &Model<AnyDevice>, pairs: f64) -> f64 {
    let config = model.config();
    4.0 * pairs * (config.num_heads * config.head_dim) as f64
}
