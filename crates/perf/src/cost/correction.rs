//! What models that were run whole tell of a price. A profile of a CPU times steps of a few models. These steps are priced like any
//! other's; what they took, beside what their parts add up to, is the factor of other models' steps. It holds what the parts measured
//! alone do not: weights that lie in a cache, threads that go on from product to product.
//!
//! Factors are interpolated between the models by the bytes of their linears, and in decode between steps by their sequences, all in
//! logarithms. Beyond the smallest and the largest the nearest one holds.

use dualgrain_device::CacheFormat;

use super::memory::linears_bytes;
use super::network::{Linear, Network};
use super::phase::{items, time};
use super::price::Prices;
use super::scheme::Scheme;
use super::workload::{Phase, Workload};
use crate::error::PerfError;
use crate::machine::Machine;
use crate::timed_models::{GROUP_SIZE, TimedModel};

/// The factors of a machine.
#[derive(Debug, Default)]
pub(crate) struct Correction {
    /// By the bytes of their linears, the smallest first.
    models: Vec<Factors>,
}

/// What one model tells.
#[derive(Debug)]
struct Factors {
    linears_bytes: f64,
    prompt: f64,
    /// Sequences and factor.
    decode: Vec<(f64, f64)>,
}

impl Correction {
    /// That of the models that were timed on the machine. There is none for other schemes than theirs, for fewer threads, and where
    /// their products have no price.
    pub fn new(machine: &Machine, workload: &Workload, prices: &mut Prices<'_>) -> Self {
        let is_like_theirs = workload.scheme == Scheme::W4a8
            && matches!(
                workload.kv_cache,
                CacheFormat::Int8 | CacheFormat::Int8Static { .. }
            )
            && prices.threads() == Some(machine.num_units);
        if !is_like_theirs {
            return Self::default();
        }
        let timed = machine.timed_models.iter();
        let told = timed.map(|timed| factors(timed, machine, workload, prices));
        let mut models = told.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        models.sort_by(|a, b| a.linears_bytes.total_cmp(&b.linears_bytes));
        Self { models }
    }

    /// The factor of a phase's times; 1 where nothing is known.
    pub fn of(&self, network: &Network, workload: &Workload, (batch, phase): (usize, Phase)) -> f64 {
        let of_model = |model: &Factors| match phase {
            Phase::Prompt => model.prompt,
            Phase::Decode => interpolated(&model.decode, batch as f64),
        };
        let models = self.models.iter();
        let points: Vec<_> = models
            .map(|model| (model.linears_bytes, of_model(model)))
            .collect();
        interpolated(&points, linears_bytes(network, workload) as f64)
    }

    /// The sentence that says so.
    pub fn assumption(&self, network: &Network, workload: &Workload) -> Option<String> {
        let count = self.models.len();
        let of = |phase| {
            let batches = workload.batches.iter();
            let factors = batches.map(|&batch| format!("{:.2}", self.of(network, workload, (batch, phase))));
            factors.collect::<Vec<_>>().join(", ")
        };
        (count > 0).then(|| {
            format!(
                "Every line is multiplied by what {count} models that were run whole on the machine took, beside what their lines add \
                 up to: {} (prompts of each batch) and {} (decode), by the bytes of the linears and the sequences.",
                of(Phase::Prompt),
                of(Phase::Decode)
            )
        })
    }
}

/// The value at `x` on the line through the two points beside it, in logarithms; `points` go by their first number. 1 without points.
fn interpolated(points: &[(f64, f64)], x: f64) -> f64 {
    let above = points.partition_point(|point| point.0 <= x);
    let before = above.checked_sub(1).and_then(|place| points.get(place));
    match (before, points.get(above)) {
        (None, None) => 1.0,
        (Some(only), None) | (None, Some(only)) => only.1,
        (Some(low), Some(high)) => {
            let share = (x / low.0).ln() / (high.0 / low.0).ln();
            low.1 * (high.1 / low.1).powf(share)
        }
    }
}

fn factors(
    timed: &TimedModel,
    machine: &Machine,
    workload: &Workload,
    prices: &mut Prices<'_>,
) -> Result<Factors, PerfError> {
    let network = network(timed);
    let prompt = Workload {
        prompt_tokens: timed.prompt_tokens,
        step_tokens: timed.prompt_tokens,
        ..theirs(workload)
    };
    // The second token takes one step, and sees the prompt and itself.
    let decode = Workload {
        prompt_tokens: timed.context.saturating_sub(1),
        ..theirs(workload)
    };
    let mut factor = |workload: &Workload, step: (usize, Phase), time_s: f64| {
        let items = items(&network, machine, workload, step, prices)?;
        Ok::<f64, PerfError>(time_s / time(&items, None).value)
    };
    let of_prompt = factor(&prompt, (1, Phase::Prompt), timed.prompt_s)?;
    let of_decode = timed.decode.iter().map(|step| {
        let factor = factor(&decode, (step.sequences, Phase::Decode), step.time_s)?;
        Ok((step.sequences as f64, factor))
    });
    Ok(Factors {
        linears_bytes: linears_bytes(&network, &decode) as f64,
        prompt: of_prompt,
        decode: of_decode.collect::<Result<_, PerfError>>()?,
    })
}

/// How the timed models were run.
fn theirs(workload: &Workload) -> Workload {
    Workload {
        generate_tokens: 2,
        head_scheme: Scheme::W8a8,
        group_size: GROUP_SIZE,
        ..workload.clone()
    }
}

fn network(timed: &TimedModel) -> Network {
    let sizes = &timed.sizes;
    let linear = |name: &str, [n, k]: [usize; 2], count| Linear {
        name: name.to_owned(),
        n,
        k,
        count,
        choice: None,
        head: name == "head",
    };
    let names = ["qkv", "out", "up", "down"].into_iter().zip(sizes.block());
    let of_blocks = names.map(|(name, shape)| linear(name, shape, sizes.num_layers));
    Network {
        name: "a timed model".to_owned(),
        linears: of_blocks.chain([linear("head", sizes.head(), 1)]).collect(),
        num_layers: sizes.num_layers,
        hidden_size: sizes.hidden,
        ffn_size: sizes.ffn,
        gated: true,
        num_heads: sizes.num_heads,
        num_kv_heads: sizes.num_kv_heads,
        head_dim: sizes.head_dim,
        vocab_size: sizes.vocab_size,
        num_embeddings: 0,
        tie_embeddings: false,
        max_positions: timed.prompt_tokens.max(timed.context) + 1,
        sliding_windows: vec![None; sizes.num_layers],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_points_logarithms_lie_on_a_line_and_beyond_them_the_nearest_holds() {
        let points = [(1.0, 0.5), (100.0, 2.0)];
        assert_eq!(interpolated(&points, 0.1), 0.5);
        assert_eq!(interpolated(&points, 1.0), 0.5);
        assert!((interpolated(&points, 10.0) - 1.0).abs() < 1e-12);
        assert_eq!(interpolated(&points, 100.0), 2.0);
        assert_eq!(interpolated(&points, 1e9), 2.0);
        assert_eq!(interpolated(&[], 5.0), 1.0);
    }
}
