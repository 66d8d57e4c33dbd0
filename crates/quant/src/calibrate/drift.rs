//! How far the input of a linear has drifted from that of the original model, by what was quantized before it, and what the
//! input is once it is INT8.

use dualgrain_device::{ActivationScale, Gram, Operand, Statistics};
use dualgrain_engine::{Block, Role};
use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};
use dualgrain_threads::Pool;

use crate::calibrate::companion::Companion;
use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::int8_rows::through_int8;
use crate::calibrate::multiply_adds::PassMultiplyAdds;
use crate::calibrate::passes::{input_of, load_input};
use crate::error::QuantError;
use crate::monitor::Meter;
use crate::transposed::transposed;

/// Statistics of the input `x` of a linear, quantized and smoothed as it is in use, beside the original model over the
/// calibration tokens.
pub struct Drift {
    /// Sum of `x x^T` `[K,K]`, lower triangle.
    pub gram: Gram,
    /// What the original model has and the quantized one lacks, with `x`.
    pub lacking: Lacking,
}

/// Sums over the calibration tokens.
pub enum Lacking {
    /// Sum of `x (y - x)^T` `[K,K]`, with the smoothed input `y` of the original model.
    Input(Vec<f32>),
    /// Sum of `x d^T` `[K,N]`, for a linear that adds to the residual stream: `d` is what the stream lacks behind it while the
    /// linear's weights are still floats.
    Stream(Vec<f32>),
}

/// The linear whose input is observed.
pub struct DriftingLinear<'a> {
    /// Its role.
    pub role: Role,
    /// By what its input is smoothed `[K]`.
    pub scales: &'a [f32],
    /// How its input becomes INT8.
    pub activations: ActivationScale,
    /// Its float weights `[N,K]`, smoothed.
    pub weights: &'a [f32],
    /// Its bias `[N]`.
    pub bias: Option<&'a [f32]>,
    /// Whether the original model passes it: its output is added to the residual stream then, and with nothing else.
    pub is_passed: bool,
    /// Whether it makes up for what the residual stream lacks, where it adds to the stream. It can not through a norm.
    pub mends_stream: bool,
}

impl DriftingLinear<'_> {
    fn counts_stream(&self) -> bool {
        self.mends_stream && self.is_passed
    }
}

/// Observes the input of a linear in `states`, beside `companion`, over all windows. A companion passes a linear that adds to
/// the residual stream on the way.
///
/// # Errors
/// I/O, cancellation; the device failed.
pub fn observe_drift<D: Statistics>(
    pool: &Pool,
    (states, block): (&mut HiddenStates<'_, D>, &Block<D>),
    companion: &mut Companion<'_, D>,
    linear: &DriftingLinear<'_>,
    meter: &Meter<'_>,
) -> Result<Drift, QuantError> {
    let mut observation = Observation::new(states.device, (pool, states.window_len()), linear)?;
    let of = input_of(block, linear.role);
    let cost = PassMultiplyAdds::new(block.spec(), states.window_len()).drift(linear.role);
    for window in 0..states.num_windows() {
        load_input(states, block, linear.role, window)?;
        load_input(&mut companion.states, &companion.block, linear.role, window)?;
        observation.take_input(states, of(states))?;
        let of_input = match linear.counts_stream() {
            true => None,
            false => Some(observation.lacking_input(&companion.states, of(&companion.states))?),
        };
        if linear.is_passed {
            companion.add_to_stream(linear.role, window)?;
        }
        let lacking = match of_input {
            Some(lacking) => lacking,
            None => observation.lacking_stream(states, &companion.states)?,
        };
        observation.add(lacking)?;
        meter.advance(cost)?;
    }
    observation.finish()
}

/// A drift as it is observed.
struct Observation<'a, D: Statistics> {
    device: &'a D,
    pool: &'a Pool,
    linear: &'a DriftingLinear<'a>,
    tokens: usize,
    /// K, and columns of the sums.
    k: usize,
    width: usize,
    gram: D::Gram,
    /// The quantized input of a window [tokens, K], on the host too, and [K, tokens].
    x: D::Matrix,
    host_x: Vec<f32>,
    transposed_x: D::Matrix,
    /// `[K, width]`
    sums: D::Matrix,
    product: D::Matrix,
    /// The linear in float, where its output counts, and that output [tokens, N].
    float: Option<(D::Linear, D::Matrix)>,
}

impl<'a, D: Statistics> Observation<'a, D> {
    fn new(
        device: &'a D,
        (pool, tokens): (&'a Pool, usize),
        linear: &'a DriftingLinear<'a>,
    ) -> Result<Self, QuantError> {
        let k = linear.scales.len();
        let n = linear.weights.len() / k;
        let width = if linear.counts_stream() { n } else { k };
        let mut sums = device.matrix(k, width)?;
        device.upload(&mut sums, &vec![0.0; k * width])?;
        let float = if linear.counts_stream() {
            let bias = linear.bias.map(<[f32]>::to_vec);
            let packed = packed(device, (n, k), linear.weights.to_vec(), bias)?;
            Some((packed, device.matrix(tokens, n)?))
        } else {
            None
        };
        Ok(Self {
            gram: device.gram(k)?,
            x: device.matrix(tokens, k)?,
            host_x: Vec::new(),
            transposed_x: device.matrix(k, tokens)?,
            product: device.matrix(k, width)?,
            device,
            pool,
            linear,
            tokens,
            k,
            width,
            sums,
            float,
        })
    }

    /// Takes the input of a window, quantized.
    fn take_input(&mut self, states: &HiddenStates<'_, D>, input: &D::Matrix) -> Result<(), QuantError> {
        let mut x = downloaded(states, input)?;
        let activations = self.linear.activations;
        self.pool
            .for_each_chunk(&mut x, self.k, |_, row| through_int8(row, activations));
        self.device.upload(&mut self.x, &x)?;
        self.device.gram_accumulate(&mut self.gram, &self.x)?;
        let transposed = transposed(self.pool, &x, self.tokens);
        self.device.upload(&mut self.transposed_x, &transposed)?;
        self.host_x = x;
        Ok(())
    }

    /// What the input lacks [tokens, K].
    fn lacking_input(
        &self,
        original: &HiddenStates<'_, D>,
        input: &D::Matrix,
    ) -> Result<Vec<f32>, QuantError> {
        let (k, scales) = (self.k, self.linear.scales);
        let mut lacking = downloaded(original, input)?;
        self.pool.for_each_chunk(&mut lacking, k, |token, row| {
            let x = &self.host_x[token * k..][..k];
            for ((value, scale), x) in row.iter_mut().zip(scales).zip(x) {
                *value = *value / scale - x;
            }
        });
        Ok(lacking)
    }

    /// What the residual stream lacks behind the linear [tokens, N], where `original` stands.
    fn lacking_stream(
        &mut self,
        states: &HiddenStates<'_, D>,
        original: &HiddenStates<'_, D>,
    ) -> Result<Vec<f32>, QuantError> {
        let mut lacking = downloaded(original, &original.x)?;
        let mut subtract = |values: Vec<f32>| {
            lacking
                .iter_mut()
                .zip(&values)
                .for_each(|(left, value)| *left -= value);
        };
        subtract(downloaded(states, &states.x)?);
        if let Some((linear, out)) = &mut self.float {
            self.device.gemm(out, Operand::Float(&self.x), linear)?;
            subtract(downloaded(states, out)?);
        }
        Ok(lacking)
    }

    /// Adds a window that lacks `lacking` [tokens, width].
    fn add(&mut self, lacking: Vec<f32>) -> Result<(), QuantError> {
        let transposed = transposed(self.pool, &lacking, self.tokens);
        let lacking = packed(self.device, (self.width, self.tokens), transposed, None)?;
        let x = Operand::Float(&self.transposed_x);
        Ok(self
            .device
            .gemm_add(&mut self.sums, &mut self.product, x, &lacking)?)
    }

    fn finish(self) -> Result<Drift, QuantError> {
        let mut sums = vec![0.0; self.k * self.width];
        self.device.download(&self.sums, 0..self.k, &mut sums)?;
        Ok(Drift {
            gram: self.device.gram_to_host(self.gram)?,
            lacking: if self.linear.counts_stream() {
                Lacking::Stream(sums)
            } else {
                Lacking::Input(sums)
            },
        })
    }
}

fn packed<D: Statistics>(
    device: &D,
    (n, k): (usize, usize),
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
) -> Result<D::Linear, QuantError> {
    let linear = FloatLinear::new(n, k, FloatValues::F32(weights), bias)?;
    Ok(device.pack(LinearWeights::Float(linear))?)
}

fn downloaded<D: Statistics>(states: &HiddenStates<'_, D>, x: &D::Matrix) -> Result<Vec<f32>, QuantError> {
    let (device, rows) = (states.device, states.device.rows(x));
    let mut values = vec![0.0; rows * device.columns(x)];
    device.download(x, 0..rows, &mut values)?;
    Ok(values)
}
