//! Mixtures of experts on a card against the specification, bit for bit.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. `--cases N` (default 400: those that all devices
//! are compared by, then random ones of every kind of weights, of routers and of recorded steps); `--times` prints speeds afterwards.

mod card;
mod mixture_times;

use std::process::ExitCode;

use dualgrain_cuda::{CudaDevice, CudaError, Gpu, Jit};
use dualgrain_device::cases::{
    ExpertWeights, HOSTILITIES, MixtureCase, Random, mixture_cases, w4_layer, w8_layer,
};
use dualgrain_device::naive::NaiveDevice;
use dualgrain_device::{
    ActivationScale, Device, DeviceError, ExpertInput, Operand, RoutingRule, RoutingScoring, RoutingShape,
    StepLayout, StepLimits,
};
use dualgrain_format::{FloatLinear, FloatValues, GroupSize, LinearWeights};
use half::bf16;

fn main() -> ExitCode {
    card::compare("mixtures", 400, compare_all, mixture_times::print_all)
}

/// How many of `count` cases differ.
fn compare_all(_: &Jit, _: &Gpu, count: usize) -> Result<usize, CudaError> {
    let (card, naive) = (CudaDevice::open(0)?, NaiveDevice::new());
    let (mut r, mut failed) = (Random(41), 0);
    let listed = mixture_cases();
    for index in 0..count {
        let differs = match (listed.get(index), index % 4) {
            (Some(case), _) => differ(case, case.run(&card), case.run(&naive)),
            (None, 0) => {
                let case = random_mixture(&mut r);
                differ(&case, case.run(&card), case.run(&naive))
            }
            (None, 1) => {
                let case = Router::new(&mut r);
                differ(&case.words(), case.run(&card), case.run(&naive))
            }
            (None, 2) => {
                let case = Recorded::new(&mut r);
                differ(&case, case.run(&card), case.run(&naive))
            }
            (None, _) => {
                let case = Products::new(&mut r);
                differ(&case, case.run(&card), case.run(&naive))
            }
        };
        failed += usize::from(differs);
    }
    Ok(failed)
}

/// Whether a card's values have other bits than the expected ones (NaN is any NaN).
fn differ(
    case: &impl std::fmt::Debug,
    got: Result<Vec<f32>, DeviceError>,
    expected: Result<Vec<f32>, DeviceError>,
) -> bool {
    let expected = expected.expect("the specification runs");
    let got = match got {
        Ok(got) => got,
        Err(error) => {
            println!("FAILED: {case:?}: {error}");
            return true;
        }
    };
    let same = |(got, expected): (&f32, &f32)| {
        got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan()
    };
    let wrong = got.iter().zip(&expected).filter(|&pair| !same(pair)).count();
    let first = got.iter().zip(&expected).position(|pair| !same(pair));
    let is_wrong = wrong > 0 || got.len() != expected.len();
    if is_wrong {
        let lengths = (got.len(), expected.len());
        println!("FAILED: {case:?}: {wrong} differ, the first at {first:?}, of {lengths:?}");
    }
    is_wrong
}

fn rule(r: &mut Random, num_chosen: usize) -> RoutingRule {
    RoutingRule {
        num_chosen,
        scoring: [RoutingScoring::Softmax, RoutingScoring::Sigmoid][r.below(2)],
        normalized: r.below(2) == 0,
        scale: [1.0, 2.5, -0.1][r.below(3)],
    }
}

/// Tokens, experts and experts of a token.
fn sizes(r: &mut Random) -> (usize, usize, usize) {
    let tokens = [
        1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 200, 300,
    ];
    let experts = [1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 64, 128, 129];
    let (m, num_experts) = (tokens[r.below(tokens.len())], experts[r.below(experts.len())]);
    (m, num_experts, 1 + r.below(num_experts.min(9)))
}

fn random_mixture(r: &mut Random) -> MixtureCase {
    let (m, num_experts, num_chosen) = sizes(r);
    MixtureCase {
        m: m.min(130),
        hidden: 2 + 2 * r.below(150),
        inner: 1 + r.below(70),
        num_experts: num_experts.min(33),
        rule: rule(r, num_chosen.min(num_experts.min(33))),
        shared: r.below(2) == 0,
        weights: [ExpertWeights::Float, ExpertWeights::W8, ExpertWeights::W4][r.below(3)],
    }
}

/// The pairs of a routing: what each expert reads of the tokens' numbers, and what each token takes of its experts.
fn routed<D: Device>(device: &D, routing: &D::Routing, shape: RoutingShape) -> Result<Vec<f32>, DeviceError> {
    let (m, pairs) = (shape.tokens, shape.tokens * shape.num_chosen);
    let numbered = |rows: usize| -> Result<D::Matrix, DeviceError> {
        let mut x = device.matrix(rows, 2)?;
        let values: Vec<f32> = (0..2 * rows).map(|i| 1.0 + i as f32).collect();
        device.upload(&mut x, &values)?;
        Ok(x)
    };
    let (h, y, mut x, shared) = (numbered(m)?, numbered(pairs)?, numbered(m)?, numbered(m)?);
    device.combine(&mut x, &y, Some(&shared), routing)?;
    let mut all = values(device, &x)?;
    device.combine(&mut x, &y, None, routing)?;
    all.extend(values(device, &x)?);
    let mut of_expert = device.matrix(pairs, 2)?;
    for expert in 0..shape.num_experts {
        for source in [(&h, ExpertInput::Tokens), (&y, ExpertInput::Rows)] {
            device.gather_expert(&mut of_expert, source, routing, expert)?;
            all.push(device.rows(&of_expert) as f32);
            all.extend(values(device, &of_expert)?);
        }
    }
    Ok(all)
}

fn values<D: Device>(device: &D, x: &D::Matrix) -> Result<Vec<f32>, DeviceError> {
    let mut out = vec![0.0; device.rows(x) * device.columns(x)];
    device.download(x, 0..device.rows(x), &mut out)?;
    Ok(out)
}

/// Logits that tie, vanish, overflow or are no numbers.
struct Router {
    shape: RoutingShape,
    rule: RoutingRule,
    columns: usize,
    logits: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Router {
    fn new(r: &mut Random) -> Self {
        let (mut tokens, mut num_experts, mut num_chosen) = sizes(r);
        if r.below(6) == 0 {
            (tokens, num_experts) = (1 + r.below(40), 1_024 - r.below(500));
            num_chosen = 1 + r.below(64);
        }
        let columns = num_experts + r.below(2);
        let hostile = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            1e-40,
            -3e38,
            90.0,
            -104.0,
        ];
        let (how, spread) = (r.below(4), [0.5, 4.0, 60.0][r.below(3)]);
        let mut logit = |_| match r.below(8) < how {
            true => hostile[r.below(hostile.len())],
            false if how == 3 => (r.below(5) as f32) - 2.0,
            false => spread * r.float(),
        };
        let logits = (0..tokens * columns).map(&mut logit).collect();
        Self {
            shape: RoutingShape {
                tokens,
                num_experts,
                num_chosen,
                columns: 2,
            },
            rule: rule(r, num_chosen),
            columns,
            logits,
            bias: (r.below(2) == 0).then(|| r.floats(num_experts)),
        }
    }

    fn words(&self) -> String {
        format!(
            "router {:?} {:?} of {} columns",
            self.shape, self.rule, self.columns
        )
    }

    fn run<D: Device>(&self, device: &D) -> Result<Vec<f32>, DeviceError> {
        let mut routing = device.routing(self.shape)?;
        let mut logits = device.matrix(self.shape.tokens, self.columns)?;
        device.upload(&mut logits, &self.logits)?;
        let mut bias = device.matrix(1, self.shape.num_experts)?;
        if let Some(values) = &self.bias {
            device.upload(&mut bias, values)?;
        }
        let bias = self.bias.as_ref().map(|_| &bias);
        device.route(&mut routing, &logits, bias, &self.rule)?;
        routed(device, &routing, self.shape)
    }
}

/// Products of experts whose weights are kept in different ways.
#[derive(Debug)]
struct Products {
    shape: RoutingShape,
    n: usize,
    k: usize,
    is_float: bool,
    input: ExpertInput,
    seed: u64,
}

impl Products {
    fn new(r: &mut Random) -> Self {
        let ks = [
            1, 2, 3, 16, 31, 33, 64, 65, 127, 128, 130, 255, 300, 511, 513, 1_025, 2_047,
        ];
        let ns = [1, 2, 15, 17, 31, 33, 63, 65, 127, 129, 191, 257, 300];
        let (tokens, num_experts, num_chosen) = sizes(r);
        let (n, mut k) = (ns[r.below(ns.len())], ks[r.below(ks.len())]);
        if num_experts * n * k > 4_000_000 || tokens * num_chosen * n * k > 40_000_000 {
            k = k.min(33);
        }
        Self {
            shape: RoutingShape {
                tokens,
                num_experts,
                num_chosen,
                columns: k,
            },
            n,
            k,
            is_float: r.below(3) == 0,
            input: [ExpertInput::Tokens, ExpertInput::Rows][r.below(2)],
            seed: r.next(),
        }
    }

    fn weights(&self, r: &mut Random) -> LinearWeights {
        let (n, k) = (self.n, self.k);
        if self.is_float {
            let values = r.floats(n * k);
            let values = match r.below(2) {
                0 => FloatValues::F32(values),
                _ => FloatValues::Bf16(values.into_iter().map(bf16::from_f32).collect()),
            };
            let bias = (r.below(2) == 0).then(|| r.floats(n));
            return LinearWeights::Float(FloatLinear::new(n, k, values, bias).expect("a valid layer"));
        }
        let sizes = GroupSize::ALL;
        match r.below(sizes.len() + 1) {
            4 => LinearWeights::W8(w8_layer(r, (n, k))),
            size => {
                let how = HOSTILITIES[r.below(HOSTILITIES.len())];
                LinearWeights::W4(w4_layer(r, (n, k), sizes[size], how))
            }
        }
    }

    fn run<D: Device>(&self, device: &D) -> Result<Vec<f32>, DeviceError> {
        let mut r = Random(self.seed);
        let RoutingShape {
            tokens,
            num_experts,
            num_chosen,
            ..
        } = self.shape;
        let linears = (0..num_experts).map(|_| device.pack(self.weights(&mut r)));
        let experts = device.experts(linears.collect::<Result<_, _>>()?)?;
        let mut routing = device.routing(self.shape)?;
        let mut logits = device.matrix(tokens, num_experts)?;
        let mut drawn = r.floats(tokens * num_experts);
        // Half of the time most tokens go to the same experts.
        if self.seed.is_multiple_of(2) {
            let liked = drawn
                .chunks_exact_mut(num_experts)
                .flat_map(|row| &mut row[..num_chosen]);
            liked.for_each(|logit| *logit += 0.9);
        }
        device.upload(&mut logits, &drawn)?;
        device.route(&mut routing, &logits, None, &rule(&mut r, num_chosen))?;
        let rows = match self.input {
            ExpertInput::Tokens => tokens,
            ExpertInput::Rows => tokens * num_chosen,
        };
        let mut x = device.matrix(rows, self.k)?;
        device.upload(&mut x, &r.floats(rows * self.k))?;
        let (mut x8, mut y) = (
            device.quantized(rows, self.k)?,
            device.matrix(tokens * num_chosen, self.n)?,
        );
        device.quantize(&mut x8, &x, ActivationScale::PerToken)?;
        let a = match self.is_float {
            true => Operand::Float(&x),
            false => Operand::Int8(&x8),
        };
        device.gemm_experts(&mut y, (a, self.input), &experts, &mut routing)?;
        values(device, &y)
    }
}

/// A step that is launched, recorded and replayed, each time for tokens that go to other experts.
#[derive(Debug)]
struct Recorded {
    tokens: usize,
    seed: u64,
}

impl Recorded {
    fn new(r: &mut Random) -> Self {
        Self {
            tokens: 1 + r.below(20),
            seed: r.next(),
        }
    }

    fn run<D: Device>(&self, device: &D) -> Result<Vec<f32>, DeviceError> {
        let (mut r, m) = (Random(self.seed), self.tokens);
        let (num_experts, num_chosen, hidden, inner) = (16, 3, 128, 64);
        let rule = rule(&mut r, num_chosen);
        let experts = |(n, k): (usize, usize), r: &mut Random| {
            let linears = (0..num_experts).map(|_| {
                let layer = w4_layer(r, (n, k), GroupSize::Along(64), HOSTILITIES[0]);
                device.pack(LinearWeights::W4(layer))
            });
            device.experts(linears.collect::<Result<_, _>>()?)
        };
        let (up, down) = (
            experts((2 * inner, hidden), &mut r)?,
            experts((hidden, inner), &mut r)?,
        );
        let shape = RoutingShape {
            tokens: m,
            num_experts,
            num_chosen,
            columns: hidden,
        };
        let mut routing = device.routing(shape)?;
        let pairs = m * num_chosen;
        let (mut logits, mut x) = (device.matrix(m, num_experts)?, device.matrix(m, hidden)?);
        let (mut f, mut wide, mut y) = (
            device.matrix(pairs, inner)?,
            device.matrix(pairs, 2 * inner)?,
            device.matrix(pairs, hidden)?,
        );
        let (mut x8, mut f8) = (device.quantized(m, hidden)?, device.quantized(pairs, inner)?);
        let mut step = device.step(StepLimits {
            tokens: m,
            sequences: m,
            pages_per_sequence: 1,
        })?;
        let (positions, sequences) = (vec![0; m], (0..m as u32).collect::<Vec<_>>());
        let page_tables: Vec<Vec<u32>> = (0..m as u32).map(|page| vec![page]).collect();
        let layout = StepLayout {
            positions: &positions,
            sequences: &sequences,
            page_tables: &page_tables,
        };
        let mut all = Vec::new();
        for _ in 0..5 {
            device.upload_step(&mut step, &layout)?;
            device.upload(&mut logits, &r.floats(m * num_experts))?;
            device.upload(&mut x, &r.floats(m * hidden))?;
            device.run_step(&step, &mut || {
                device.route(&mut routing, &logits, None, &rule)?;
                device.quantize(&mut x8, &x, ActivationScale::PerToken)?;
                let a = (Operand::Int8(&x8), ExpertInput::Tokens);
                let f_of = dualgrain_device::Activation::Silu;
                device.gemm_experts_gated(&mut f, &mut wide, a, &up, &mut routing, f_of)?;
                device.quantize(&mut f8, &f, ActivationScale::PerToken)?;
                let a = (Operand::Int8(&f8), ExpertInput::Rows);
                device.gemm_experts(&mut y, a, &down, &mut routing)?;
                device.combine(&mut x, &y, None, &routing)
            })?;
            all.extend(values(device, &x)?);
        }
        Ok(all)
    }
}
