//! Estimates the parts of a step that are no products, from their bytes and operations and the machine's measured
//! ceilings.
//!
//! Where `profile` has measured such operations on one block (on CPUs), their rates take the place of the ceilings. The
//! model itself was not measured either way, so every such item carries bounds in place of an interval: what is reached
//! at best and at worst.

use dualgrain_device::CacheFormat;

use crate::cost::answer::CostItem;
use crate::cost::network::Network;
use crate::cost::scheme::Scheme;
use crate::cost::workload::{Phase, Workload};
use crate::machine::{Machine, MachineKind};
use crate::predict::Interval;
use crate::report::plot::quantity;
use crate::small_ops::{BlockSizes, SMALL_OPS, SmallOpPower};

/// Shares of a ceiling that such kernels reach: at best, as a rule, at worst.
const REACHED: [f64; 3] = [1.0, 0.7, 0.4];

/// The same of rates that were measured on a block of other sizes.
const REACHED_OF_MEASURED: [f64; 3] = [1.4, 1.0, 0.7];

/// Seconds that starting a kernel (a GPU, from a recorded graph) or waking the threads (a CPU) takes: least, as a rule, most.
const LAUNCH_S: [f64; 3] = [0.8e-6, 1.5e-6, 3e-6];
const WAKE_S: [f64; 3] = [1e-6, 3e-6, 10e-6];

/// Queries that share one read of the cache while a prompt is read.
const QUERY_BLOCK: f64 = 128.0;

/// A machine's ceilings and element sizes, as far as estimates need them.
struct Ceilings {
    bytes_per_s: f64,
    /// Operations of attention, while a prompt is read and while tokens are generated.
    attention_ops_per_s: [f64; 2],
    float_bytes: f64,
    launch_s: [f64; 3],
    reached: [f64; 3],
    /// Bytes a second out of the cache of keys and values, while a prompt is read and while tokens are generated; 0 where the
    /// operations' rate includes them.
    cache_bytes_per_s: [f64; 2],
    is_measured: bool,
    /// Seconds that attention of a step takes in a block before its operations count, while tokens are generated.
    decode_start_s: f64,
    power: Option<SmallOpPower>,
}

impl Ceilings {
    fn new(machine: &Machine, workload: &Workload) -> Self {
        let (ops_per_s, float_bytes, launch_s) = match machine.kind {
            MachineKind::Gpu => (machine.half_ops_per_s, 2.0, LAUNCH_S),
            MachineKind::Cpu => (machine.float_ops_per_s, 4.0, WAKE_S),
        };
        let ceilings = Self {
            bytes_per_s: machine.read_bytes_per_s,
            attention_ops_per_s: [ops_per_s; 2],
            float_bytes,
            launch_s,
            reached: REACHED,
            cache_bytes_per_s: [machine.read_bytes_per_s; 2],
            is_measured: false,
            decode_start_s: 0.0,
            power: None,
        };
        // They were measured over an INT8 cache.
        match machine.small_ops {
            Some(rates)
                if matches!(
                    workload.kv_cache,
                    CacheFormat::Int8 | CacheFormat::Int8Static { .. }
                ) =>
            {
                Self {
                    bytes_per_s: rates.bytes_per_s,
                    attention_ops_per_s: [rates.prompt_attention_ops_per_s, rates.decode_attention_ops_per_s],
                    // The operations were measured on 32-bit floats.
                    float_bytes: 4.0,
                    launch_s: REACHED_OF_MEASURED.map(|fraction| rates.start_s / fraction),
                    reached: REACHED_OF_MEASURED,
                    cache_bytes_per_s: [0.0, rates.decode_cache_bytes_per_s],
                    is_measured: true,
                    decode_start_s: rates.decode_attention_start_s,
                    power: rates.power,
                }
            }
            _ => ceilings,
        }
    }

    /// Bounds and estimate of the time for amounts at their rates, whichever takes longer. A rate that was not measured (0)
    /// bounds nothing.
    fn time_s(&self, amounts: &[(f64, f64)]) -> Interval {
        let at_rate = |&(amount, rate): &(f64, f64)| if rate > 0.0 { amount / rate } else { 0.0 };
        let ideal_s = amounts.iter().map(at_rate).fold(0.0, f64::max);
        bounds(self.reached.map(|fraction| ideal_s / fraction))
    }
}

fn bounds([low, value, high]: [f64; 3]) -> Interval {
    Interval { value, low, high }
}

/// The sentence that says what the lines stand on.
pub(crate) fn assumption(machine: &Machine, workload: &Workload) -> String {
    let ceilings = Ceilings::new(machine, workload);
    let [least, rule, most] = ceilings.launch_s.map(|seconds| quantity(seconds, "s"));
    let [best, reached, worst] = ceilings.reached.map(|fraction| fraction * 100.0);
    let of_what = match ceilings.is_measured {
        true => "of what the operations of one block reach on the machine",
        false => "of the machine's measured ceilings",
    };
    let of_power = match ceilings.power {
        Some(_) => "what the operations of one block draw on the machine",
        None => "the mean power of the phase's products",
    };
    format!(
        "Lines called estimates are not measured on this model: bytes and operations at {reached:.0} % {of_what}, between \
         {best:.0} % and {worst:.0} %, and {rule} (between {least} and {most}) to start each of {SMALL_OPS} small operations a block. \
         They draw {of_power}, between idle and the limit of the machine."
    )
}

/// The lines of a phase, summed over its steps. `products` give the power.
pub(crate) fn items(
    network: &Network,
    machine: &Machine,
    workload: &Workload,
    batch: usize,
    phase: Phase,
    products: &[CostItem],
) -> Vec<CostItem> {
    let (first, last) = match phase {
        Phase::Prompt => (0, workload.prompt_tokens),
        // The first token generated comes from the prompt's last position.
        Phase::Decode => (
            workload.prompt_tokens,
            workload.prompt_tokens + workload.decode_steps(),
        ),
    };
    if batch * (last - first) == 0 {
        return Vec::new();
    }
    let count: usize = workload.steps(batch, phase).iter().map(|(_, count)| count).sum();
    let lines = lines(network, machine, workload, batch, phase, (first..last, count));
    let of_products = mean_power_w(products);
    let item = |Line {
                    name,
                    time_s,
                    power_w,
                }: Line| CostItem {
        name: name.to_owned(),
        phase,
        count,
        shape: None,
        kernel: String::new(),
        config: String::new(),
        estimate: true,
        extrapolated: false,
        time_s,
        share: 0.0,
        // Without energy of products no sum could be told.
        energy_j: of_products.map(|of_products| energy(machine, time_s, power_w.unwrap_or(of_products))),
    };
    lines.into_iter().map(item).collect()
}

/// A line of a phase, over all its positions and steps.
struct Line {
    name: &'static str,
    time_s: Interval,
    /// Mean power, where it was measured.
    power_w: Option<f64>,
}

/// What the lines are called, how long they take and what they draw, over all positions of a phase and its steps.
fn lines(
    network: &Network,
    machine: &Machine,
    workload: &Workload,
    batch: usize,
    phase: Phase,
    (positions, num_steps): (std::ops::Range<usize>, usize),
) -> [Line; 4] {
    let ceilings = Ceilings::new(machine, workload);
    let tokens = (batch * positions.len()) as f64;
    let logits = (batch * workload.head_steps(phase) * network.vocab_size) as f64;
    // Logits are read twice: the largest, then the chances.
    let sampled_bytes = tokens * 2.0 * network.hidden_size as f64 * 2.0 + logits * 8.0;
    let small_bytes = tokens * small_op_bytes(network, workload, &ceilings);
    let starts = (num_steps * (SMALL_OPS * network.num_layers + 3)) as f64;
    let power = |of: fn(SmallOpPower) -> f64| ceilings.power.map(of);
    [
        attention(network, &ceilings, workload, batch, phase, (positions, num_steps)),
        Line {
            name: "norms, activations, quantization",
            time_s: ceilings.time_s(&[(small_bytes, ceilings.bytes_per_s)]),
            power_w: power(|power| power.bytes_w),
        },
        Line {
            name: "embedding and sampling",
            time_s: ceilings.time_s(&[(sampled_bytes, machine.read_bytes_per_s)]),
            power_w: power(|power| power.bytes_w),
        },
        Line {
            name: "starting small kernels",
            time_s: bounds(ceilings.launch_s.map(|seconds| seconds * starts)),
            power_w: power(|power| power.start_w),
        },
    ]
}

/// Scores and sums; keys and values are read once for all queries of a block.
fn attention(
    network: &Network,
    ceilings: &Ceilings,
    workload: &Workload,
    batch: usize,
    phase: Phase,
    (positions, num_steps): (std::ops::Range<usize>, usize),
) -> Line {
    let seen = batch as f64 * network.seen_positions(positions.start, positions.end);
    let token = workload
        .kv_cache
        .bytes_per_token(network.num_kv_heads, network.head_dim) as f64;
    let (shared_by, at, starts) = match phase {
        Phase::Prompt => (QUERY_BLOCK.min(positions.len() as f64), 0, 0),
        Phase::Decode => (1.0, 1, num_steps * network.num_layers),
    };
    let pairs_s = ceilings.time_s(&[
        (seen * token / shared_by, ceilings.cache_bytes_per_s[at]),
        (
            sizes(network).attention_ops(seen),
            ceilings.attention_ops_per_s[at],
        ),
    ]);
    let start_s = bounds(
        ceilings
            .reached
            .map(|share| starts as f64 * ceilings.decode_start_s / share),
    );
    let of_pairs = |power: SmallOpPower| match phase {
        Phase::Prompt => power.prompt_attention_w,
        Phase::Decode => power.decode_attention_w,
    };
    let time_s = Interval {
        value: pairs_s.value + start_s.value,
        low: pairs_s.low + start_s.low,
        high: pairs_s.high + start_s.high,
    };
    let mean_w = |power| {
        (pairs_s.value * of_pairs(power) + start_s.value * power.start_w)
            / time_s.value.max(f64::MIN_POSITIVE)
    };
    Line {
        name: "attention over the cache",
        time_s,
        power_w: ceilings.power.map(mean_w),
    }
}

/// Bytes a token moves in all blocks between products.
fn small_op_bytes(network: &Network, workload: &Workload, ceilings: &Ceilings) -> f64 {
    // What a product reads: integers, or floats again.
    let operand = match workload.scheme {
        Scheme::W4a8 | Scheme::W8a8 => 1.0,
        Scheme::Bf16 => ceilings.float_bytes,
    };
    network.num_layers as f64 * sizes(network).small_op_bytes(ceilings.float_bytes, operand)
}

fn sizes(network: &Network) -> BlockSizes {
    BlockSizes {
        hidden: network.hidden_size,
        q: network.q_size(),
        kv: network.kv_size(),
        ffn: network.ffn_size,
        gated: network.gated,
    }
}

/// Mean power of products; `None` where energy is not known.
fn mean_power_w(products: &[CostItem]) -> Option<f64> {
    let time_s: f64 = products.iter().map(|item| item.time_s.value).sum();
    let energy_j = products
        .iter()
        .map(|item| item.energy_j.map(|energy| energy.value))
        .sum::<Option<f64>>()?;
    Some(energy_j / time_s)
}

/// Energy of so long a time at a power, between what the machine draws idle and at most.
fn energy(machine: &Machine, time_s: Interval, power_w: f64) -> Interval {
    let least_w = machine.idle_power_w.map_or(0.0, |idle| idle.min(power_w));
    let most_w = machine
        .power_limit_w
        .map_or(2.0 * power_w, |limit| limit.max(power_w));
    Interval {
        value: power_w * time_s.value,
        low: least_w * time_s.low,
        high: most_w * time_s.high,
    }
}
