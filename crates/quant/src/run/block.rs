//! One block from float to 4 bits, its linears in order of execution, each on what the ones before it give.
//!
//! A producer's rows scale with its output, and a row's codes do not change when the row is multiplied by a number:
//! only s1 does. So up (and v) are quantized first, the INT8 stream is run through them, and when the abs-maxima of
//! their outputs are known, the smoothing scales go into s1 and the bias. That is exactly what smoothing before
//! quantizing would give, without a pass in float.

use dualgrain_device::{Activation, CacheFormat, Device};
use dualgrain_engine::{
    Block, BlockSpec, FfnKind, JoinedLinear, ModelConfig, Norm, NormKind, NormSpec, Projection, Role, Weights,
};
use dualgrain_engine::{load_role_float, split_members};
use dualgrain_format::checkpoint::{Dtype, TensorBytes, TensorSpec, f32_bytes, linear_tensors};
use dualgrain_format::{
    ActivationScheme, CacheScheme, FloatLinear, FloatValues, FormatError, LinearWeights, QuantizedLinear,
};

use crate::calibrate::hidden_states::{InputStats, Stream};
use crate::error::QuantError;
use crate::methods::linear::{FloatRows, quantize_linear};
use crate::monitor::Meter;
use crate::options::QuantOptions;
use crate::report::json::{LinearReport, Trial, best_percentile};
use crate::transform::activation_error::static_scale;
use crate::transform::smoothing::{
    Smoothing, column_maxima, divide, fold_heads, multiply_columns, smooth_gram, spread_heads,
};

/// What every block of a run shares.
pub struct Context<'a, D: Device> {
    /// The device.
    pub device: &'a D,
    /// The original model.
    pub config: &'a ModelConfig,
    /// Its tensors.
    pub weights: &'a Weights,
    /// The options.
    pub options: &'a QuantOptions,
    /// Progress and cancellation.
    pub meter: &'a Meter<'a>,
}

/// A finished block.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedBlock {
    /// Everything that replaces tensors of the original block.
    pub tensors: Vec<TensorBytes>,
    /// Static scales of keys and values, if the options ask for them.
    pub cache_scales: Option<[f32; 2]>,
    /// One report a linear.
    pub reports: Vec<LinearReport>,
}

/// Where the smoothing scales of a linear's input are absorbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Producer {
    /// Nowhere: no smoothing.
    None,
    /// In the norm or the rows before it, channel by channel.
    Channels,
    /// In the rows of v, which grouped heads share.
    ValueHeads,
}

/// Where the scales of a linear could go, and where they do under the options of the run.
#[derive(Debug, Clone, Copy)]
struct Pair {
    possible: Producer,
    producer: Producer,
}

/// Quantizes block `layer` and moves the stream to its output.
///
/// # Errors
/// See [`QuantError`].
pub fn quantize_block<D: Device>(
    context: &Context<'_, D>,
    stream: &mut Stream<'_, D>,
    layer: usize,
) -> Result<QuantizedBlock, QuantError> {
    let mut run = BlockRun::new(context, layer)?;
    run.start("qkv");
    let stats = stream.attention_input(&run.block, context.meter)?;
    run.quantize_after_norm(Role::Qkv, stats)?;
    run.calibrate_cache(stream)?;
    run.start("out");
    let stats = stream.attention_output(&run.block, context.meter)?;
    run.quantize_out(stream, stats)?;
    run.start("up");
    let stats = stream.add_attention(&run.block, context.meter)?;
    run.quantize_after_norm(Role::Up, stats)?;
    run.start("down");
    let stats = stream.ffn_inner(&run.block, context.meter)?;
    run.quantize_down(stats)?;
    stream.add_ffn(&run.block, context.meter)?;
    context.weights.release_pages();
    run.finish()
}

struct BlockRun<'a, D: Device> {
    context: &'a Context<'a, D>,
    block: Block<D>,
    linears: [Option<QuantizedLinear>; 4],
    norms: Vec<TensorBytes>,
    cache_scales: Option<[f32; 2]>,
    reports: Vec<LinearReport>,
}

impl<'a, D: Device> BlockRun<'a, D> {
    fn new(context: &'a Context<'a, D>, layer: usize) -> Result<Self, QuantError> {
        let spec = BlockSpec::new(context.config, layer);
        let empty = || Projection::new(context.device, no_weights()?).map_err(QuantError::from);
        let empty = [empty()?, empty()?, empty()?, empty()?];
        Ok(Self {
            block: Block::from_projections(context.device, context.weights, spec, empty)?,
            context,
            linears: [None, None, None, None],
            norms: Vec::new(),
            cache_scales: None,
            reports: Vec::new(),
        })
    }

    fn spec(&self) -> &BlockSpec {
        self.block.spec()
    }

    fn start(&self, role: &str) {
        let (layer, layers) = (self.spec().layer + 1, self.context.config.num_layers);
        self.context
            .meter
            .start(format!("block {layer}/{layers}: {role}"));
    }

    /// Qkv or Up: smoothing goes into the norm before it.
    fn quantize_after_norm(&mut self, role: Role, stats: InputStats) -> Result<(), QuantError> {
        let pairs = self.context.options.pairs;
        let on = if role == Role::Qkv {
            pairs.norm_qkv
        } else {
            pairs.norm_up
        };
        let pair = self.pair(on, Producer::Channels);
        let scales = self.quantize(role, stats, pair)?;
        if pair.producer == Producer::None {
            return Ok(());
        }
        let spec = if role == Role::Qkv {
            &self.spec().attn_norm
        } else {
            &self.spec().ffn_norm
        };
        let (norm, tensors) = self.smoothed_norm(&spec.clone(), &scales)?;
        self.norms.extend(tensors);
        match role {
            Role::Qkv => self.block.set_attn_norm(norm),
            _ => self.block.set_ffn_norm(norm),
        }
        Ok(())
    }

    /// Static scales of keys and values, and the cache that calibration attends over.
    fn calibrate_cache(&mut self, stream: &mut Stream<'_, D>) -> Result<(), QuantError> {
        let format = match self.context.options.kv_cache {
            CacheScheme::F16 => CacheFormat::F16,
            CacheScheme::Int8 => CacheFormat::Int8,
            CacheScheme::Int8Static => {
                let [keys, values] = stream
                    .key_value_maxima(&self.block, self.context.meter)?
                    .map(|max| max / 127.0);
                self.cache_scales = Some([keys, values]);
                CacheFormat::Int8Static {
                    key_scales: vec![keys],
                    value_scales: vec![values],
                }
            }
        };
        stream.set_cache(&format)
    }

    /// Out: smoothing goes into the rows of v.
    fn quantize_out(&mut self, stream: &mut Stream<'_, D>, stats: InputStats) -> Result<(), QuantError> {
        let pair = self.pair(self.context.options.pairs.v_out, Producer::ValueHeads);
        let scales = self.quantize(Role::Out, stats, pair)?;
        if pair.producer == Producer::None {
            return Ok(());
        }
        let spec = self.spec();
        let first_value_row = spec.q_size() + spec.kv_size();
        let value_scales = fold_heads(&scales, spec.num_heads, spec.num_kv_heads);
        self.rescale_rows(Role::Qkv, first_value_row, &value_scales)?;
        self.calibrate_cache(stream)?;
        stream.repeat_attention(&self.block, self.context.meter)
    }

    /// Down: smoothing goes into the rows of up, or of fc1 when only a ReLU lies between (f(c x) = c f(x) for c > 0).
    fn quantize_down(&mut self, stats: InputStats) -> Result<(), QuantError> {
        let first_row = match self.spec().ffn {
            FfnKind::Gated(_) => Some(self.spec().ffn_size),
            FfnKind::Plain(Activation::Relu) => Some(0),
            FfnKind::Plain(_) => None,
        };
        let possible = first_row.map_or(Producer::None, |_| Producer::Channels);
        let pair = self.pair(self.context.options.pairs.up_down, possible);
        let scales = self.quantize(Role::Down, stats, pair)?;
        match (pair.producer, first_row) {
            (Producer::Channels, Some(first_row)) => self.rescale_rows(Role::Up, first_row, &scales),
            _ => Ok(()),
        }
    }

    fn pair(&self, on: bool, possible: Producer) -> Pair {
        let on = on && self.context.options.smoothing.is_on();
        Pair {
            possible,
            producer: if on { possible } else { Producer::None },
        }
    }

    /// Quantizes one linear from the statistics of its (not yet smoothed) input; returns its smoothing scales.
    fn quantize(
        &mut self,
        role: Role,
        mut stats: InputStats,
        Pair { possible, producer }: Pair,
    ) -> Result<Vec<f32>, QuantError> {
        let Context {
            device,
            options,
            meter,
            ..
        } = *self.context;
        let (mut weights, bias) = self.load(role)?;
        let k = self.spec().role(role).k;
        let columns = column_maxima(&weights, k);
        let trial = Trial::new(device, options, &stats, &weights);
        let sweep = match possible {
            Producer::None => Vec::new(),
            _ => trial.sweep(|smoothing| self.scales(possible, smoothing, &stats.maxima, &columns)),
        };
        let smoothing = match (options.smoothing, best_percentile(&sweep)) {
            (Smoothing::Auto, Some(percentile)) => Smoothing::Percentile(percentile),
            (smoothing, _) => smoothing,
        };
        let percentile = match smoothing {
            Smoothing::Percentile(percentile) if producer != Producer::None => Some(percentile),
            _ => None,
        };
        let scales = self.scales(producer, smoothing, &stats.maxima, &columns);
        let mut report = trial.report(weights.len() / k, &scales, sweep, percentile);
        multiply_columns(&mut weights, &scales);
        smooth_gram(&mut stats.gram, &scales);
        let layer = FloatRows {
            weights: &weights,
            k,
            bias: bias.as_deref(),
        };
        let (linear, fit) = quantize_linear(
            device,
            layer,
            &stats.gram,
            options.group_size,
            options.search,
            meter,
        )?;
        let linear = match options.activations {
            ActivationScheme::PerToken => linear,
            ActivationScheme::Static => with_static_scale(&linear, static_scale(&stats.maxima, &scales))?,
        };
        report.finish(self.spec().layer, role.name(), &linear, &fit);
        self.reports.push(report);
        self.place(role, linear)?;
        Ok(scales)
    }

    fn load(&self, role: Role) -> Result<(Vec<f32>, Option<Vec<f32>>), QuantError> {
        let JoinedLinear { weights, .. } = load_role_float(self.context.weights, self.spec(), role)?;
        self.context.weights.release_pages();
        match weights {
            LinearWeights::Float(linear) => match linear.into_parts() {
                (FloatValues::F32(weights), bias) => Ok((weights, bias)),
                (halves @ FloatValues::Bf16(_), bias) => Ok((halves.to_f32(), bias)),
            },
            LinearWeights::W8(_) | LinearWeights::W4(_) => Err(QuantError::AlreadyQuantized {
                path: self.context.weights.dir().to_path_buf(),
            }),
        }
    }

    /// Smoothing scales of a linear's input from the maxima of its channels and of the weights' columns.
    fn scales(&self, producer: Producer, smoothing: Smoothing, maxima: &[f32], columns: &[f32]) -> Vec<f32> {
        let (heads, kv_heads) = (self.spec().num_heads, self.spec().num_kv_heads);
        match producer {
            Producer::None => vec![1.0; maxima.len()],
            Producer::Channels => smoothing.scales(maxima, columns),
            Producer::ValueHeads => {
                let fold = |statistic: &[f32]| fold_heads(statistic, heads, kv_heads);
                spread_heads(&smoothing.scales(&fold(maxima), &fold(columns)), heads, kv_heads)
            }
        }
    }

    /// The norm with weight (and bias) divided by `scales`, and the tensors that replace the original ones.
    fn smoothed_norm(
        &self,
        spec: &NormSpec,
        scales: &[f32],
    ) -> Result<(Norm<D>, Vec<TensorBytes>), QuantError> {
        let divided = |part: &str| -> Result<Vec<f32>, QuantError> {
            let name = format!("{}.{part}", spec.name);
            let mut values = self
                .context
                .weights
                .f32(&name, &[spec.len])
                .map_err(dualgrain_engine::EngineError::from)?;
            divide(&mut values, scales);
            Ok(values)
        };
        let weight = divided("weight")?;
        let bias = match spec.kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(divided("bias")?),
        };
        let mut tensors = vec![f32_tensor(format!("{}.weight", spec.name), &weight)];
        tensors.extend(
            bias.iter()
                .map(|bias| f32_tensor(format!("{}.bias", spec.name), bias)),
        );
        Ok((
            Norm::new(self.context.device, spec, &weight, bias.as_deref()),
            tensors,
        ))
    }

    /// Divides rows of a quantized producer: their channel scales and biases.
    fn rescale_rows(&mut self, role: Role, first_row: usize, scales: &[f32]) -> Result<(), QuantError> {
        let Some(linear) = self.linears[role as usize].take() else {
            return Ok(());
        };
        let mut parts = linear.parts().clone();
        divide(&mut parts.s1[first_row..][..scales.len()], scales);
        if let Some(bias) = &mut parts.bias {
            divide(&mut bias[first_row..][..scales.len()], scales);
        }
        let rescaled = QuantizedLinear::new((linear.n(), linear.k()), linear.group_size(), parts)?;
        self.place(role, rescaled)
    }

    fn place(&mut self, role: Role, linear: QuantizedLinear) -> Result<(), QuantError> {
        let weights = LinearWeights::W4(linear.clone());
        let projection = Projection::new(self.context.device, weights)?;
        self.block.set_projection(role, projection);
        self.linears[role as usize] = Some(linear);
        Ok(())
    }

    fn finish(self) -> Result<QuantizedBlock, QuantError> {
        let mut tensors = self.norms;
        for (role, linear) in Role::ALL.into_iter().zip(self.linears) {
            let Some(linear) = linear else { continue };
            let members = &self.block.spec().role(role).members;
            for (name, member) in split_members(&LinearWeights::W4(linear), members)? {
                tensors.extend(linear_tensors(&name, &member));
            }
        }
        Ok(QuantizedBlock {
            tensors,
            cache_scales: self.cache_scales,
            reports: self.reports,
        })
    }
}

/// Stands in for a linear whose turn has not come.
fn no_weights() -> Result<LinearWeights, FormatError> {
    FloatLinear::new(1, 1, FloatValues::F32(vec![0.0]), None).map(LinearWeights::Float)
}

fn with_static_scale(linear: &QuantizedLinear, ta: f32) -> Result<QuantizedLinear, FormatError> {
    let mut parts = linear.parts().clone();
    parts.ta = Some(ta);
    QuantizedLinear::new((linear.n(), linear.k()), linear.group_size(), parts)
}

/// An F32 vector as a tensor.
pub fn f32_tensor(name: String, values: &[f32]) -> TensorBytes {
    let spec = TensorSpec {
        name,
        dtype: Dtype::F32,
        shape: vec![values.len()],
    };
    (spec, f32_bytes(values))
}
