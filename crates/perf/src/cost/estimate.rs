//! What a step does besides its products, estimated: bytes and operations by the machine's measured ceilings.
//!
//! None of this is measured, so every line carries bounds in place of an interval: the ceilings themselves at the lower end,
//! a share of them at the upper.

use super::{Line, Network, Phase, Request, Scheme};
use crate::plot::quantity;
use crate::{Interval, Machine, MachineKind};

/// Shares of a ceiling that such kernels reach: at best, as a rule, at worst.
const REACHED: [f64; 3] = [1.0, 0.7, 0.4];

/// Kernels of a block that are no products: two norms that quantize, rotation with the write to the cache, attention,
/// quantization before `out`, activation before `down`.
const SMALL_KERNELS: usize = 6;

/// Seconds that starting a kernel (a GPU, from a recorded graph) or waking the threads (a CPU) takes: least, as a rule, most.
const LAUNCH_S: [f64; 3] = [0.8e-6, 1.5e-6, 3e-6];
const WAKE_S: [f64; 3] = [1e-6, 3e-6, 10e-6];

/// Queries that share one read of the cache while a prompt is read.
const QUERY_BLOCK: f64 = 128.0;

/// A machine's ceilings and element sizes, as far as estimates need them.
struct Ceilings {
    bytes_per_s: f64,
    ops_per_s: f64,
    float_bytes: f64,
    launch_s: [f64; 3],
}

impl Ceilings {
    fn new(machine: &Machine) -> Self {
        let bytes_per_s = machine.read_bytes_per_s;
        match machine.kind {
            MachineKind::Gpu => Self {
                bytes_per_s,
                ops_per_s: machine.half_ops_per_s,
                float_bytes: 2.0,
                launch_s: LAUNCH_S,
            },
            MachineKind::Cpu => Self {
                bytes_per_s,
                ops_per_s: machine.float_ops_per_s,
                float_bytes: 4.0,
                launch_s: WAKE_S,
            },
        }
    }

    /// Bounds and estimate of the time for `bytes` and `operations`, whichever takes longer. A ceiling that was not
    /// measured (0) bounds nothing.
    fn time_s(&self, bytes: f64, operations: f64) -> Interval {
        let ideal = |amount: f64, rate: f64| if rate > 0.0 { amount / rate } else { 0.0 };
        let ideal_s = ideal(bytes, self.bytes_per_s).max(ideal(operations, self.ops_per_s));
        bounds(REACHED.map(|share| ideal_s / share))
    }
}

fn bounds([low, value, high]: [f64; 3]) -> Interval {
    Interval { value, low, high }
}

/// The sentence that says what the lines stand on.
pub(super) fn assumption(machine: &Machine) -> String {
    let [least, rule, most] = Ceilings::new(machine)
        .launch_s
        .map(|seconds| quantity(seconds, "s"));
    let [_, reached, worst] = REACHED.map(|share| share * 100.0);
    format!(
        "Lines called estimates are not measured: bytes and operations at {reached:.0} % of the machine's measured ceilings, between \
         100 % and {worst:.0} %, and {rule} (between {least} and {most}) to start each of {SMALL_KERNELS} small kernels a block. \
         They draw the mean power of the phase's products, between idle and the limit of the machine."
    )
}

/// The lines of a phase, summed over its steps. `products` give the power.
pub(super) fn lines(
    network: &Network,
    machine: &Machine,
    request: &Request,
    batch: usize,
    phase: Phase,
    products: &[Line],
) -> Vec<Line> {
    let ceilings = Ceilings::new(machine);
    let (first, last) = match phase {
        Phase::Prompt => (0, request.prompt_tokens),
        // The first token generated comes from the prompt's last position.
        Phase::Decode => (
            request.prompt_tokens,
            request.prompt_tokens + request.decode_steps(),
        ),
    };
    let tokens = (batch * (last - first)) as f64;
    let num_steps: usize = request.steps(batch, phase).iter().map(|(_, count)| count).sum();
    if tokens == 0.0 {
        return Vec::new();
    }
    let logits = (batch * request.head_steps(phase) * network.vocab_size) as f64;
    let times = [
        (
            "attention over the cache",
            attention(network, &ceilings, request, batch, phase, first..last),
        ),
        (
            "norms, activations, quantization",
            ceilings.time_s(tokens * elementwise_bytes(network, request, &ceilings), 0.0),
        ),
        // Logits are read twice: the largest, then the chances.
        (
            "embedding and sampling",
            ceilings.time_s(
                tokens * 2.0 * network.hidden_size as f64 * 2.0 + logits * 8.0,
                0.0,
            ),
        ),
        (
            "starting small kernels",
            bounds(
                ceilings
                    .launch_s
                    .map(|seconds| seconds * (num_steps * (SMALL_KERNELS * network.num_layers + 3)) as f64),
            ),
        ),
    ];
    let power = power(machine, products);
    times
        .into_iter()
        .map(|(name, time_s)| Line {
            name: name.to_owned(),
            phase,
            count: num_steps,
            shape: None,
            kernel: String::new(),
            config: String::new(),
            estimate: true,
            extrapolated: false,
            time_s,
            share: 0.0,
            energy_j: power.map(|power| Interval {
                value: power.value * time_s.value,
                low: power.low * time_s.low,
                high: power.high * time_s.high,
            }),
        })
        .collect()
}

/// Scores and sums: four operations for each query, key and element of a head; keys and values are read once for all queries
/// of a block.
fn attention(
    network: &Network,
    ceilings: &Ceilings,
    request: &Request,
    batch: usize,
    phase: Phase,
    positions: std::ops::Range<usize>,
) -> Interval {
    let seen = batch as f64 * network.seen_positions(positions.start, positions.end);
    let operations = 4.0 * seen * network.q_size() as f64;
    let token = request
        .cache
        .bytes_per_token(network.num_kv_heads, network.head_dim) as f64;
    let shared_by = match phase {
        Phase::Prompt => QUERY_BLOCK.min(positions.len() as f64),
        Phase::Decode => 1.0,
    };
    ceilings.time_s(seen * token / shared_by, operations)
}

/// Bytes a token moves in all blocks between products: each small kernel reads its input and writes its output once.
fn elementwise_bytes(network: &Network, request: &Request, ceilings: &Ceilings) -> f64 {
    let float = ceilings.float_bytes;
    // What a product reads: integers, or floats again.
    let operand = match request.scheme {
        Scheme::W4a8 | Scheme::W8a8 => 1.0,
        Scheme::Bf16 => float,
    };
    let (hidden, q, qkv, ffn) = (
        network.hidden_size as f64,
        network.q_size() as f64,
        (network.q_size() + 2 * network.kv_size()) as f64,
        network.ffn_size as f64,
    );
    let norms = 2.0 * hidden * (3.0 * float + operand);
    let rotation = qkv * 2.0 * float;
    let out = q * (float + operand);
    let inner = ffn * (if network.gated { 2.0 } else { 1.0 } * float + operand);
    network.num_layers as f64 * (norms + rotation + out + inner)
}

/// Mean power of products, between what the machine draws idle and at most; `None` where energy is not known.
fn power(machine: &Machine, products: &[Line]) -> Option<Interval> {
    let time_s: f64 = products.iter().map(|line| line.time_s.value).sum();
    let energy_j = products
        .iter()
        .map(|line| line.energy_j.map(|energy| energy.value))
        .sum::<Option<f64>>()?;
    let value = energy_j / time_s;
    Some(Interval {
        value,
        low: machine.idle_power_w.map_or(0.0, |idle| idle.min(value)),
        high: machine
            .power_limit_w
            .map_or(2.0 * value, |limit| limit.max(value)),
    })
}
