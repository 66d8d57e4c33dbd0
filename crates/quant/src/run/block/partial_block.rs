//! A block whose linears become quantized one after the other.

use std::collections::BTreeMap;

use dualgrain_device::{ActivationScale, CacheFormat, Statistics};
use dualgrain_engine::{
    Block, BlockSpec, ExpertProjections, LinearId, LinearSpec, Norm, NormSpec, Projection, Role,
    split_members,
};
use dualgrain_format::checkpoint::{Dtype, TensorBytes, TensorSpec, f32_bytes, linear_tensors};
use dualgrain_format::{CacheScheme, FloatLinear, FloatValues, FormatError, LinearScheme, LinearWeights};

use crate::calibrate::cache_range;
use crate::calibrate::companion::{Companion, adds_to_stream};
use crate::calibrate::drift::{Drift, DriftingLinear, observe_drift};
use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::passes;
use crate::calibrate::statistics::InputStatistics;
use crate::error::QuantError;
use crate::methods::ablation::Step;
use crate::methods::compensate::target::correct_weights;
use crate::methods::method::{FloatRows, LinearTask};
use crate::report::json::{LinearReport, ReportedLinear};
use crate::run::block::quantized_block::QuantizedBlock;
use crate::run::context::RunContext;
use crate::transform::divided_rows::with_divided_rows;
use crate::transform::linear_smoothing::LinearSmoothing;
use crate::transform::producer::Producer;
use crate::transform::sample::LinearSample;
use crate::transform::smoothing::{column_maxima, divide, multiply_columns, smooth_statistics};

/// The linears of a block that are quantized so far, in a block that runs them.
pub struct PartialBlock<'a, D: Statistics> {
    run: &'a RunContext<'a, D>,
    block: Block<D>,
    /// What is quantized so far.
    linears: BTreeMap<LinearId, LinearWeights>,
    /// Experts of one role that wait for the others of it.
    experts: BTreeMap<LinearId, Projection<D>>,
    /// Tensors of smoothed norms.
    norms: Vec<TensorBytes>,
    cache_scales: Option<[f32; 2]>,
    reports: Vec<LinearReport>,
}

impl<'a, D: Statistics> PartialBlock<'a, D> {
    /// Block `layer`, of which only the norms are there.
    ///
    /// # Errors
    /// A norm that is missing, misshapen or not finite.
    pub fn new(run: &'a RunContext<'a, D>, layer: usize) -> Result<Self, QuantError> {
        let spec = BlockSpec::new(run.config, layer);
        let empty = |&id| Ok((id, Projection::new(run.device, no_weights()?)?));
        let empty = spec
            .linears
            .keys()
            .map(empty)
            .collect::<Result<Vec<_>, QuantError>>()?;
        Ok(Self {
            block: run.original.block_of(run.device, spec, empty)?,
            run,
            linears: BTreeMap::new(),
            experts: BTreeMap::new(),
            norms: Vec::new(),
            cache_scales: None,
            reports: Vec::new(),
        })
    }

    /// The block, for passes through what is quantized of it.
    pub fn block(&self) -> &Block<D> {
        &self.block
    }

    /// What the run shares.
    pub fn run(&self) -> &'a RunContext<'a, D> {
        self.run
    }

    /// Whether the block is a mixture.
    pub fn has_experts(&self) -> bool {
        self.spec().mixture.is_some()
    }

    /// Whether the block has a linear of that identity.
    pub fn has_linear(&self, id: LinearId) -> bool {
        self.spec().linears.contains_key(&id)
    }

    /// Says which linear is worked on.
    pub fn announce(&self, id: LinearId) {
        let (layer, layers) = (id.layer + 1, self.run.config.num_layers);
        let phase = match (id.expert, &self.spec().mixture) {
            (Some(expert), Some(mixture)) => {
                let (role, experts) = (id.role.name(), mixture.num_experts);
                format!(
                    "block {layer}/{layers}: {role} of expert {}/{experts}",
                    expert + 1
                )
            }
            _ => format!("block {layer}/{layers}: {}", id.role.name()),
        };
        self.run.meter.start(phase);
    }

    /// Quantizes one linear from the statistics of its (not yet smoothed) input. Returns whether something before it
    /// changed, since smoothing scales went there.
    ///
    /// # Errors
    /// See [`QuantError`].
    pub fn quantize_linear(
        &mut self,
        id: LinearId,
        mut statistics: InputStatistics,
        (states, companion): (&mut HiddenStates<'_, D>, Option<&mut Companion<'_, D>>),
    ) -> Result<bool, QuantError> {
        let run = self.run;
        let spec = self.spec().linear(id)?.clone();
        let scheme = run.options.scheme(id);
        let Some((method, group_size)) = run.method_of(scheme) else {
            self.keep_float(&spec)?;
            if let Some(companion) = companion.filter(|_| self.is_passed(id.role)) {
                companion.pass(id.role, run.meter)?;
            }
            return Ok(false);
        };
        let (mut weights, bias) = run.original.linear(&spec)?;
        let sample = LinearSample::new(
            run.device,
            (scheme, run.options.activations),
            &statistics,
            &weights,
        );
        let smoothing = self.choose_smoothing(id, &sample, &column_maxima(&weights, spec.k))?;
        let activation_nmse = sample.activation_nmse(&smoothing.scales);
        let mut report = LinearReport::new(self.reported(&spec), &statistics, &smoothing, activation_nmse);

        multiply_columns(&mut weights, &smoothing.scales);
        smooth_statistics(&mut statistics, &smoothing.scales);
        self.smooth_producer(id.role, &smoothing)?;
        if let Some(companion) = companion {
            let activations = run.activations(&statistics);
            let float = (&mut weights[..], bias.as_deref());
            let drift = self.correct(id.role, float, (&smoothing, activations), (states, companion))?;
            statistics.replace_gram(drift.gram, id)?;
        }

        let task = LinearTask {
            rows: FloatRows {
                weights: &weights,
                k: statistics.maxima.len(),
                bias: bias.as_deref(),
            },
            statistics: &statistics,
            group_size,
            activations: run.activations(&statistics),
        };
        let (linear, method_report) = method.quantize(&run.resources(), &task)?;

        report.finish(&linear, &method_report);
        self.reports.push(report);
        self.place(id, linear)?;
        Ok(smoothing.producer.is_some())
    }

    /// Corrects the smoothed weights `[N,K]` of a linear for what was quantized before it; `companion` passes the linear.
    fn correct(
        &mut self,
        role: Role,
        (weights, bias): (&mut [f32], Option<&[f32]>),
        (smoothing, activations): (&LinearSmoothing, ActivationScale),
        (states, companion): (&mut HiddenStates<'_, D>, &mut Companion<'_, D>),
    ) -> Result<Drift, QuantError> {
        let run = self.run;
        if role == Role::Out && smoothing.producer.is_some() {
            // The values have been divided by now.
            self.calibrate_cache(states)?;
            passes::repeat_attention(states, &self.block, run.meter)?;
        }
        let linear = DriftingLinear {
            role,
            scales: &smoothing.scales,
            activations,
            weights,
            bias,
            is_passed: self.is_passed(role),
            mends_stream: run.options.ablation.has(Step::StreamCorrection) && !self.is_normed(role),
        };
        let drift = observe_drift(run.pool, (states, &self.block), companion, &linear, run.meter)?;
        correct_weights((run.device, run.pool), weights, &drift)?;
        Ok(drift)
    }

    /// Static scales of keys and values, and the cache that calibration attends over.
    ///
    /// # Errors
    /// See [`QuantError`].
    pub fn calibrate_cache(&mut self, states: &mut HiddenStates<'_, D>) -> Result<(), QuantError> {
        let format = match self.run.options.kv_cache {
            // Each token and head has a scale of its own, which holds what floats hold.
            CacheScheme::Int8 => CacheFormat::Int8,
            CacheScheme::F16 => {
                self.checked_maxima(states)?;
                CacheFormat::F16
            }
            CacheScheme::Int8Static => {
                let [keys, values] = self.checked_maxima(states)?.map(|max| max / 127.0);
                self.cache_scales = Some([keys, values]);
                CacheFormat::Int8Static {
                    key_scales: vec![keys],
                    value_scales: vec![values],
                }
            }
        };
        states.set_cache(&format)
    }

    /// The largest magnitudes of keys and values, which the cache can hold.
    fn checked_maxima(&self, states: &mut HiddenStates<'_, D>) -> Result<[f32; 2], QuantError> {
        let maxima = passes::key_value_maxima(states, &self.block, self.run.meter)?;
        cache_range::check(self.spec().layer, self.run.options.kv_cache, maxima)?;
        Ok(maxima)
    }

    /// What the block leaves, its linears under their names in the checkpoint.
    ///
    /// # Errors
    /// A number-format error would be a bug here and is passed on.
    pub fn finish(self) -> Result<QuantizedBlock, QuantError> {
        let mut tensors = self.rotated_norms()?;
        tensors.extend(self.rotated_router()?);
        tensors.extend(self.norms);
        for (id, linear) in &self.linears {
            let members = &self.block.spec().linear(*id)?.members;
            for (name, member) in split_members(linear, members)? {
                tensors.extend(linear_tensors(&name, &member));
            }
        }
        Ok(QuantizedBlock {
            tensors,
            cache_scales: self.cache_scales,
            reports: self.reports,
        })
    }

    /// The norms whose weights went into the linears behind them, unless smoothing has written them.
    fn rotated_norms(&self) -> Result<Vec<TensorBytes>, QuantError> {
        if !self.run.original.is_rotated() {
            return Ok(Vec::new());
        }
        let mut norms = Vec::new();
        for norm in [&self.spec().attn_norm, &self.spec().ffn_norm]
            .into_iter()
            .flatten()
        {
            let name = format!("{}.weight", norm.name);
            if !self.norms.iter().any(|(spec, _)| spec.name == name) {
                norms.push(f32_tensor(name, &self.run.original.norm_values(norm, "weight")?));
            }
        }
        Ok(norms)
    }

    /// The router of a mixture, where it differs from the checkpoint's.
    fn rotated_router(&self) -> Result<Vec<TensorBytes>, QuantError> {
        let router = self.run.original.rotated_router(self.spec())?;
        let (Some(mixture), Some(router)) = (&self.spec().mixture, router) else {
            return Ok(Vec::new());
        };
        let members = split_members(&router, &mixture.router)?.into_iter();
        Ok(members
            .flat_map(|(name, member)| linear_tensors(&name, &member))
            .collect())
    }

    fn spec(&self) -> &BlockSpec {
        self.block.spec()
    }

    /// Whether what `role` gives is normed before it is added to the stream.
    fn is_normed(&self, role: Role) -> bool {
        match role {
            Role::Out => self.spec().attn_out_norm.is_some(),
            Role::Down => self.spec().ffn_out_norm.is_some(),
            Role::Qkv | Role::Up => false,
        }
    }

    /// Whether the output of `role` is added to the stream, by itself: what experts give is added to that of the shared one.
    fn is_passed(&self, role: Role) -> bool {
        adds_to_stream(role) && !(role == Role::Down && self.spec().mixture.is_some())
    }

    /// What a report says of a linear.
    pub fn reported(&self, spec: &LinearSpec) -> ReportedLinear {
        ReportedLinear {
            expert: spec.id.expert,
            layer: spec.id.layer,
            role: spec.id.role.name(),
            n: spec.n,
            scheme: self.run.options.scheme(spec.id),
            usual: LinearScheme::w4(self.run.options.group_size),
        }
    }

    fn choose_smoothing(
        &self,
        id: LinearId,
        sample: &LinearSample<'_, D>,
        column_maxima: &[f32],
    ) -> Result<LinearSmoothing, QuantError> {
        let options = self.run.options;
        Ok(LinearSmoothing::choose(
            self.producer(id),
            (options.smoothing, options.pairs.cover(id.role)),
            sample,
            column_maxima,
        )?)
    }

    /// What makes the input of a linear, where smoothing may change it: a linear that stays as it was does not take scales.
    fn producer(&self, id: LinearId) -> Option<Producer> {
        let producer = Producer::of(id.role, self.spec())?;
        let is_quantized = |role| self.linears.contains_key(&LinearId { role, ..id });
        let takes_scales = match producer {
            Producer::Norm => true,
            Producer::Rows { role, .. } => is_quantized(role),
            Producer::ValueRows { .. } => is_quantized(Role::Qkv),
        };
        takes_scales.then_some(producer)
    }

    /// Adds the report of a linear.
    pub fn add_report(&mut self, report: LinearReport) {
        self.reports.push(report);
    }

    /// Puts a linear in place as floats. Where it is as the checkpoint stores it, its tensors are copied when the folder is
    /// written.
    ///
    /// # Errors
    /// The device has no room; a tensor that is missing or broken.
    pub fn keep_float(&mut self, spec: &LinearSpec) -> Result<(), QuantError> {
        let linear = self.run.original.stored_linear(spec)?;
        if self.run.original.changes(spec.id.role) {
            return self.place(spec.id, linear);
        }
        let projection = Projection::new(self.run.device, linear)?;
        self.put(spec.id, projection)
    }

    /// Divides what makes the input of `role` by its smoothing scales.
    fn smooth_producer(&mut self, role: Role, smoothing: &LinearSmoothing) -> Result<(), QuantError> {
        let Some(producer) = smoothing.producer else {
            return Ok(());
        };
        let scales = producer.own_scales(&smoothing.scales);
        match producer {
            Producer::Norm => self.divide_norm(role, &scales),
            Producer::Rows { role, first_row } => self.divide_rows(role, first_row, &scales),
            Producer::ValueRows { first_row, .. } => self.divide_rows(Role::Qkv, first_row, &scales),
        }
    }

    /// Divides weight and bias of the norm before `role`.
    fn divide_norm(&mut self, role: Role, scales: &[f32]) -> Result<(), QuantError> {
        let attention = role == Role::Qkv;
        let spec = match attention {
            true => self.spec().attn_norm.clone(),
            false => self.spec().ffn_norm.clone(),
        };
        // A producer is a norm that is there.
        let Some(spec) = spec else { return Ok(()) };
        let weight = self.divided(&spec, "weight", scales)?;
        let bias = match spec.bias {
            false => None,
            true => Some(self.divided(&spec, "bias", scales)?),
        };
        let norm = Norm::new(self.run.device, &spec, &weight, bias.as_deref())?;
        match attention {
            true => self.block.set_attn_norm(norm),
            false => self.block.set_ffn_norm(norm),
        }
        self.norms
            .push(f32_tensor(format!("{}.weight", spec.name), &weight));
        let bias = bias.map(|bias| f32_tensor(format!("{}.bias", spec.name), &bias));
        self.norms.extend(bias);
        Ok(())
    }

    fn divided(&self, norm: &NormSpec, part: &str, scales: &[f32]) -> Result<Vec<f32>, QuantError> {
        let mut values = self.run.original.norm_values(norm, part)?;
        // What is stored is less than the weight by the offset.
        let offset = if part == "weight" { norm.offset } else { 0.0 };
        values.iter_mut().for_each(|value| *value += offset);
        divide(&mut values, scales);
        values.iter_mut().for_each(|value| *value -= offset);
        Ok(values)
    }

    /// Divides rows of a quantized linear: their channel scales and biases.
    fn divide_rows(&mut self, role: Role, first_row: usize, scales: &[f32]) -> Result<(), QuantError> {
        let id = LinearId::dense(self.spec().layer, role);
        match self.linears.remove(&id) {
            Some(linear) => self.place(id, with_divided_rows(linear, first_row, scales)?),
            None => Ok(()),
        }
    }

    /// Puts a quantized linear where passes run it and where [`Self::finish`] takes it.
    ///
    /// # Errors
    /// The device has no room; the block has no such linear.
    pub fn place(&mut self, id: LinearId, linear: LinearWeights) -> Result<(), QuantError> {
        let projection = Projection::new(self.run.device, linear.clone())?;
        self.put(id, projection)?;
        self.linears.insert(id, linear);
        Ok(())
    }

    /// Puts a linear where passes run it; experts of a role all at once.
    fn put(&mut self, id: LinearId, projection: Projection<D>) -> Result<(), QuantError> {
        if id.expert.is_none() {
            self.block.set_projection(id, projection)?;
            return Ok(());
        }
        self.experts.insert(id, projection);
        let num_experts = self
            .spec()
            .mixture
            .as_ref()
            .map_or(0, |mixture| mixture.num_experts);
        if self.experts.len() == num_experts {
            let all = std::mem::take(&mut self.experts).into_values().collect();
            let experts = ExpertProjections::new(self.run.device, id, all)?;
            self.block.set_experts(id.role, experts)?;
        }
        Ok(())
    }
}

/// Stands in for a linear whose turn has not come.
fn no_weights() -> Result<LinearWeights, FormatError> {
    FloatLinear::new(1, 1, FloatValues::F32(vec![0.0]), None).map(LinearWeights::Float)
}

/// An F32 vector as a tensor.
fn f32_tensor(name: String, values: &[f32]) -> TensorBytes {
    let spec = TensorSpec {
        name,
        dtype: Dtype::F32,
        shape: vec![values.len()],
    };
    (spec, f32_bytes(values))
}
