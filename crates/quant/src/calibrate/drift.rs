//! How far the input of a linear has drifted from that of the original model, by what was quantized before it, and what the
//! input is once it is INT8.

use dualgrain_device::{ActivationScale, Gram, Operand, Statistics};
use dualgrain_engine::{Block, Role};
use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};
use dualgrain_threads::Pool;

use crate::calibrate::companion::Companion;
use crate::calibrate::hidden_states::{HiddenStates, download};
use crate::calibrate::int8_rows::through_int8;
use crate::calibrate::multiply_adds::PassMultiplyAdds;
use crate::calibrate::passes::{input_of, load_input};
use crate::error::QuantError;
use crate::monitor::Meter;

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
        let counts_input = !linear.counts_stream();
        if counts_input {
            observation.take_lacking_input(&companion.states, of(&companion.states))?;
        }
        if linear.is_passed {
            companion.add_to_stream(linear.role, window)?;
        }
        if !counts_input {
            observation.take_lacking_stream(states, &companion.states)?;
        }
        observation.add()?;
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
    /// The quantized input of a window [tokens, K], on the host too.
    x: D::Matrix,
    host_x: Vec<f32>,
    /// What a window lacks [tokens, width], and room for what is taken from that.
    lacking: Vec<f32>,
    host: Vec<f32>,
    /// `[K, width]`
    sums: D::Matrix,
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
            lacking: Vec::new(),
            host: Vec::new(),
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
        download(states.device, input, &mut self.host_x)?;
        let activations = self.linear.activations;
        self.pool
            .for_each_chunk(&mut self.host_x, self.k, |_, row| through_int8(row, activations));
        self.device.upload(&mut self.x, &self.host_x)?;
        Ok(self.device.gram_accumulate(&mut self.gram, &self.x)?)
    }

    /// Takes what the input lacks.
    fn take_lacking_input(
        &mut self,
        original: &HiddenStates<'_, D>,
        input: &D::Matrix,
    ) -> Result<(), QuantError> {
        let (k, scales, host_x) = (self.k, self.linear.scales, &self.host_x);
        download(original.device, input, &mut self.lacking)?;
        self.pool.for_each_chunk(&mut self.lacking, k, |token, row| {
            let x = &host_x[token * k..][..k];
            for ((value, scale), x) in row.iter_mut().zip(scales).zip(x) {
                *value = *value / scale - x;
            }
        });
        Ok(())
    }

    /// Takes what the residual stream lacks behind the linear, where `original` stands.
    fn take_lacking_stream(
        &mut self,
        states: &HiddenStates<'_, D>,
        original: &HiddenStates<'_, D>,
    ) -> Result<(), QuantError> {
        download(original.device, &original.x, &mut self.lacking)?;
        download(states.device, &states.x, &mut self.host)?;
        subtract(self.pool, &mut self.lacking, (&self.host, self.width));
        if let Some((linear, out)) = &mut self.float {
            self.device.gemm(out, Operand::Float(&self.x), linear)?;
            download(self.device, out, &mut self.host)?;
            subtract(self.pool, &mut self.lacking, (&self.host, self.width));
        }
        Ok(())
    }

    /// Adds the window whose input and whose lack have been taken.
    fn add(&mut self) -> Result<(), QuantError> {
        let values = self.lacking.chunks(self.width);
        if !values.fold(true, |all, row| {
            all & row.iter().fold(true, |all, v| all & v.is_finite())
        }) {
            let lacking = FloatValues::F32(self.lacking.clone());
            FloatLinear::new(self.tokens, self.width, lacking, None)?;
        }
        Ok(self
            .device
            .cross_accumulate(&mut self.sums, &self.x, &self.lacking)?)
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

/// `lacking -= values`, rows of `width`.
fn subtract(pool: &Pool, lacking: &mut [f32], (values, width): (&[f32], usize)) {
    pool.for_each_chunk(lacking, width, |row, lacking| {
        let values = &values[row * width..][..width];
        lacking
            .iter_mut()
            .zip(values)
            .for_each(|(left, value)| *left -= value);
    });
}
