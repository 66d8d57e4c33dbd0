//! Mixtures of experts, small and hostile, run on any device.

use dualgrain_format::{FloatLinear, FloatValues, GroupSize, LinearWeights};

use super::{HOSTILITIES, Random, w4_layer, w8_layer};
use crate::{
    Activation, ActivationScale, Device, DeviceError, ExpertInput, Operand, RoutingRule, RoutingScoring,
    RoutingShape,
};

/// What experts' weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertWeights {
    /// 32-bit floats.
    Float,
    /// INT8.
    W8,
    /// INT8 and 4 bits by turns.
    Mixed,
    /// 4 bits in groups of 32 and of 128, by turns: groups differ where bits are shared out.
    W4,
}

/// A mixture and the tokens that come to it.
#[derive(Debug, Clone, Copy)]
pub struct MixtureCase {
    /// Tokens.
    pub m: usize,
    /// Width of the stream.
    pub hidden: usize,
    /// Width inside an expert.
    pub inner: usize,
    /// Experts.
    pub num_experts: usize,
    /// How tokens choose.
    pub rule: RoutingRule,
    /// Whether there is a shared expert with a gate.
    pub shared: bool,
    /// What the weights are.
    pub weights: ExpertWeights,
}

/// Cases around the tiles: no token, one, few and many of an expert, experts that nobody chooses, one that all choose.
pub fn mixture_cases() -> Vec<MixtureCase> {
    let sizes = [
        (0, 64, 32, 4, 2),
        (1, 64, 32, 4, 1),
        (1, 96, 48, 8, 8),
        (5, 160, 64, 16, 4),
        (17, 130, 34, 3, 2),
        (70, 256, 128, 6, 2),
        (150, 64, 32, 2, 1),
        (33, 288, 96, 129, 8),
    ];
    let mut cases = Vec::new();
    for (index, (m, hidden, inner, num_experts, num_chosen)) in sizes.into_iter().enumerate() {
        for (turn, weights) in [
            ExpertWeights::Float,
            ExpertWeights::W8,
            ExpertWeights::Mixed,
            ExpertWeights::W4,
        ]
        .into_iter()
        .enumerate()
        {
            let is_even = (index + turn).is_multiple_of(2);
            let scoring = if is_even {
                RoutingScoring::Softmax
            } else {
                RoutingScoring::Sigmoid
            };
            let scale = if is_even { 1.0 } else { 2.5 };
            let rule = RoutingRule {
                num_chosen,
                scoring,
                normalized: !index.is_multiple_of(3),
                scale,
            };
            cases.push(MixtureCase {
                m,
                hidden,
                inner,
                num_experts,
                rule,
                shared: !is_even,
                weights,
            });
        }
    }
    cases
}

impl MixtureCase {
    /// Runs the mixture on a device: what every operation of it gives, one after the other.
    ///
    /// # Errors
    /// The device failed.
    pub fn run<D: Device>(&self, device: &D) -> Result<Vec<f32>, DeviceError> {
        let mut r = Random(self.hidden as u64 + 7);
        let (m, pairs) = (self.m, self.m * self.rule.num_chosen);
        let up = device.experts(self.experts(device, (2 * self.inner, self.hidden), &mut r)?)?;
        let down = device.experts(self.experts(device, (self.hidden, self.inner), &mut r)?)?;
        let matrix = |rows: usize, columns: usize| device.matrix(rows.max(1), columns);
        let filled = |columns: usize, r: &mut Random| {
            let mut x = matrix(m, columns)?;
            device.upload(&mut x, &r.floats(m * columns))?;
            Ok::<_, DeviceError>(x)
        };
        let (h, mut x, shared) = (
            filled(self.hidden, &mut r)?,
            filled(self.hidden, &mut r)?,
            filled(self.hidden, &mut r)?,
        );
        let logits = self.logits(device, &mut r)?;
        let mut bias = matrix(1, self.num_experts)?;
        device.upload(&mut bias, &r.floats(self.num_experts))?;
        let mut routing = device.routing(RoutingShape {
            tokens: m.max(1),
            num_experts: self.num_experts,
            num_chosen: self.rule.num_chosen,
            columns: self.hidden.max(self.inner),
        })?;
        device.route(&mut routing, &logits, Some(&bias), &self.rule)?;
        let (mut f, mut wide, mut y) = (
            matrix(pairs, self.inner)?,
            matrix(pairs, 2 * self.inner)?,
            matrix(pairs, self.hidden)?,
        );
        let (mut h8, mut f8) = (
            device.quantized(m.max(1), self.hidden)?,
            device.quantized(pairs.max(1), self.inner)?,
        );
        let input = self.operand(device, &h, &mut h8)?;
        device.gemm_experts_gated(
            &mut f,
            &mut wide,
            (input, ExpertInput::Tokens),
            &up,
            &mut routing,
            Activation::Silu,
        )?;
        let input = self.operand(device, &f, &mut f8)?;
        device.gemm_experts(&mut y, (input, ExpertInput::Rows), &down, &mut routing)?;
        device.combine(&mut x, &y, self.shared.then_some(&shared), &routing)?;
        let mut all = Vec::new();
        for matrix in [&f, &y, &x] {
            all.extend(values(device, matrix)?);
        }
        let mut of_expert = matrix(pairs, self.hidden)?;
        for expert in 0..self.num_experts {
            for source in [(&h, ExpertInput::Tokens), (&y, ExpertInput::Rows)] {
                device.gather_expert(&mut of_expert, source, &routing, expert)?;
                all.extend(values(device, &of_expert)?);
            }
        }
        Ok(all)
    }

    /// Logits of which some are equal, and one expert draws many tokens.
    fn logits<D: Device>(&self, device: &D, r: &mut Random) -> Result<D::Matrix, DeviceError> {
        let columns = self.num_experts + usize::from(self.shared);
        let mut logits: Vec<f32> = (0..self.m * columns).map(|_| 4.0 * r.float()).collect();
        for row in logits.chunks_exact_mut(columns) {
            match r.below(4) {
                0 => row.fill(0.5),
                1 => row[self.num_experts / 2] = 9.0,
                _ => {}
            }
        }
        let mut matrix = device.matrix(self.m.max(1), columns)?;
        device.upload(&mut matrix, &logits)?;
        Ok(matrix)
    }

    fn operand<'a, D: Device>(
        &self,
        device: &D,
        x: &'a D::Matrix,
        x8: &'a mut D::Quantized,
    ) -> Result<Operand<'a, D>, DeviceError> {
        if self.weights == ExpertWeights::Float {
            return Ok(Operand::Float(x));
        }
        device.quantize(x8, x, ActivationScale::PerToken)?;
        Ok(Operand::Int8(x8))
    }

    fn experts<D: Device>(
        &self,
        device: &D,
        (n, k): (usize, usize),
        r: &mut Random,
    ) -> Result<Vec<D::Linear>, DeviceError> {
        let weights = |expert: usize, r: &mut Random| match self.weights {
            ExpertWeights::Float => {
                let bias = Some(r.floats(n)).filter(|_| expert.is_multiple_of(2));
                let linear = FloatLinear::new(n, k, FloatValues::F32(r.floats(n * k)), bias);
                LinearWeights::Float(linear.unwrap_or_else(|error| panic!("{error}")))
            }
            ExpertWeights::Mixed if expert.is_multiple_of(2) => LinearWeights::W8(w8_layer(r, (n, k))),
            ExpertWeights::W8 => LinearWeights::W8(w8_layer(r, (n, k))),
            ExpertWeights::W4 | ExpertWeights::Mixed => {
                let size = GroupSize::Along(if expert.is_multiple_of(2) { 32 } else { 128 });
                LinearWeights::W4(w4_layer(r, (n, k), size, HOSTILITIES[expert % 3]))
            }
        };
        (0..self.num_experts)
            .map(|expert| device.pack(weights(expert, r)))
            .collect()
    }
}

fn values<D: Device>(device: &D, x: &D::Matrix) -> Result<Vec<f32>, DeviceError> {
    let mut out = vec![0.0; device.rows(x) * device.columns(x)];
    device.download(x, 0..device.rows(x), &mut out)?;
    Ok(out)
}
