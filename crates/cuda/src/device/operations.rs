//! The contract, operation by operation: each is a launch or a few.

use std::ops::Range;

use dualgrain_device::sampling::{Sample, SampleRow, SamplerShape, SamplingParams, TokenMask};
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Columns, Device, DeviceError,
    Done, ExpertInput, Operand, Outputs, RoutingRule, RoutingShape, StepLayout, StepLimits, check_blocks,
};
use dualgrain_format::{FloatValues, LinearWeights};

use super::buffers::{CudaIndices, CudaMatrix, CudaQuantized, CudaTable};
use super::context::{CudaCache, CudaStep};
use super::cuda_device::CudaDevice;
use super::linears::CudaLinear;
use super::mixture::{Experts, Routing};
use crate::attention::RotatedQueries;
use crate::rows::{Input, NormWeights};
use crate::sampling::{SampleRows, Sampler};

impl Device for CudaDevice {
    type Matrix = CudaMatrix;
    type Quantized = CudaQuantized;
    type Linear = CudaLinear;
    type Table = CudaTable;
    type Cache = CudaCache;
    type Indices = CudaIndices;
    type Step = CudaStep;
    type Experts = Experts;
    type Routing = Routing;
    type Sampler = Sampler;
    type SampleRows = SampleRows;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn matrix(&self, capacity: usize, columns: usize) -> Result<CudaMatrix, DeviceError> {
        self.new_matrix(capacity, columns)
    }

    fn quantized(&self, capacity: usize, columns: usize) -> Result<CudaQuantized, DeviceError> {
        self.new_quantized(capacity, columns)
    }

    fn indices(&self, capacity: usize) -> Result<CudaIndices, DeviceError> {
        self.new_indices(capacity)
    }

    fn table(&self, values: FloatValues, columns: usize) -> Result<CudaTable, DeviceError> {
        self.new_table(&values, columns)
    }

    fn sample_rows(&self, capacity: usize) -> Result<SampleRows, DeviceError> {
        self.buffer("rows to sample", 16 * capacity, || {
            SampleRows::new(&self.gpu, capacity)
        })
    }

    fn step(&self, limits: StepLimits) -> Result<CudaStep, DeviceError> {
        self.new_step(limits)
    }

    fn pack_slices<E: From<DeviceError>>(
        &self,
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, E>>,
    ) -> Result<CudaLinear, E> {
        self.pack_all(shape, slices)
    }

    fn cache(&self, shape: CacheShape, format: &CacheFormat) -> Result<CudaCache, DeviceError> {
        self.new_cache(shape, format)
    }

    fn linear_n(&self, linear: &CudaLinear) -> usize {
        linear.shape().0
    }

    fn linear_bytes(&self, linear: &CudaLinear) -> usize {
        linear.bytes()
    }

    fn cache_bytes(&self, cache: &CudaCache) -> usize {
        cache.bytes()
    }

    fn rows(&self, x: &CudaMatrix) -> usize {
        x.rows
    }

    fn columns(&self, x: &CudaMatrix) -> usize {
        x.columns
    }

    fn upload(&self, x: &mut CudaMatrix, values: &[f32]) -> Done {
        let shape = (values.len() / x.columns, x.columns);
        assert_eq!(shape.0 * shape.1, values.len(), "values for whole rows");
        self.resize(x, "upload", shape)?;
        self.operation("upload", &[shape.0, shape.1], || {
            self.staging.copy(&x.buffer, 0, values)
        })
    }

    fn download(&self, x: &CudaMatrix, rows: Range<usize>, out: &mut [f32]) -> Done {
        assert!(rows.end <= x.rows, "rows {rows:?} of {}", x.rows);
        assert_eq!(out.len(), rows.len() * x.columns, "room for the rows");
        self.operation("download", &[rows.len(), x.columns], || {
            x.buffer.read(4 * rows.start * x.columns, out)
        })
    }

    fn upload_indices(&self, indices: &mut CudaIndices, values: &[u32]) -> Done {
        let room = dualgrain_device::Capacity::new(indices.capacity, 1);
        room.check("upload_indices", || self.name.clone(), (values.len(), 1))?;
        self.operation("upload_indices", &[values.len()], || {
            self.staging.copy(&indices.buffer, 0, values)
        })?;
        indices.len = values.len();
        Ok(())
    }

    fn upload_sample_rows(&self, rows: &mut SampleRows, values: &[SampleRow]) -> Done {
        self.operation("upload_sample_rows", &[values.len()], || {
            rows.upload_by(values, |buffer, words| self.staging.copy(buffer, 0, words))
        })
    }

    fn upload_step(&self, step: &mut CudaStep, layout: &StepLayout<'_>) -> Done {
        self.fill_step(step, layout)
    }

    fn run_step(&self, step: &CudaStep, run: &mut dyn FnMut() -> Done) -> Done {
        self.run_recorded(step, run)
    }

    fn embed(&self, x: &mut CudaMatrix, table: &CudaTable, ids: &CudaIndices) -> Done {
        let shape = (ids.len, table.columns);
        self.resize(x, "embed", shape)?;
        let gather = self.rows.gather(table.element);
        self.operation("embed", &[shape.0, shape.1], || {
            gather.launch(&x.buffer, &table.buffer, &ids.buffer, shape)
        })
    }

    fn prepare(&self, linears: &[(&CudaLinear, Outputs)], max_tokens: usize) -> Result<bool, DeviceError> {
        self.prepare_products(linears, max_tokens)
    }

    fn rms_norm(&self, out: &mut CudaMatrix, x: &CudaMatrix, weight: &CudaMatrix, eps: f32) -> Done {
        self.resize(out, "rms_norm", x.shape())?;
        let weights = norm_weights(weight, None, eps, x.columns);
        self.operation("rms_norm", &[x.rows, x.columns], || {
            self.rows
                .rms_norm
                .launch(&out.buffer, &x.buffer, x.shape(), weights)
        })
    }

    fn rms_norm_heads(&self, x: &mut CudaMatrix, columns: Columns, weight: &CudaMatrix, eps: f32) -> Done {
        let heads = columns.len() / weight.columns;
        let weights = norm_weights(weight, None, eps, weight.columns);
        self.operation("rms_norm_heads", &[x.rows, columns.len()], || {
            let part = (x.part(columns), heads);
            self.rows.rms_norm.launch_heads(&x.buffer, x.rows, part, weights)
        })
    }

    fn layer_norm(
        &self,
        out: &mut CudaMatrix,
        x: &CudaMatrix,
        weight: &CudaMatrix,
        bias: &CudaMatrix,
        eps: f32,
    ) -> Done {
        self.resize(out, "layer_norm", x.shape())?;
        let weights = norm_weights(weight, Some(bias), eps, x.columns);
        self.operation("layer_norm", &[x.rows, x.columns], || {
            self.rows
                .layer_norm
                .launch(&out.buffer, &x.buffer, x.shape(), weights)
        })
    }

    fn quantize(&self, out: &mut CudaQuantized, x: &CudaMatrix, scale: ActivationScale) -> Done {
        self.resize_quantized(out, "quantize", x.shape())?;
        self.operation("quantize", &[x.rows, x.columns], || {
            self.rows.quantize.launch(&x.buffer, None, scale, &mut out.tokens)
        })
    }

    fn rms_norm_quantize(
        &self,
        out: &mut CudaQuantized,
        _h: &mut CudaMatrix,
        x: &CudaMatrix,
        weight: &CudaMatrix,
        eps: f32,
        scale: ActivationScale,
    ) -> Done {
        self.resize_quantized(out, "rms_norm_quantize", x.shape())?;
        let norm = Some((&weight.buffer, eps));
        self.operation("rms_norm_quantize", &[x.rows, x.columns], || {
            self.rows
                .rms_norm_quantize
                .launch(&x.buffer, norm, scale, &mut out.tokens)
        })
    }

    fn gemm(&self, out: &mut CudaMatrix, a: Operand<'_, Self>, weights: &CudaLinear) -> Done {
        self.product(out, &a, weights)
    }

    fn gemm_rounded(&self, out: &mut CudaMatrix, a: Operand<'_, Self>, weights: &CudaLinear) -> Done {
        self.product_to_round(out, &a, weights)
    }

    fn gemm_gated(
        &self,
        out: &mut CudaMatrix,
        wide: &mut CudaMatrix,
        a: Operand<'_, Self>,
        weights: &CudaLinear,
        f: Activation,
    ) -> Done {
        let input = self.rounded_product(wide, &a, weights)?;
        self.gate(out, wide, input, f)
    }

    fn gemm_add(
        &self,
        x: &mut CudaMatrix,
        y: &mut CudaMatrix,
        a: Operand<'_, Self>,
        weights: &CudaLinear,
    ) -> Done {
        let input = self.rounded_product(y, &a, weights)?;
        self.sum(x, y, input)
    }

    fn gemm_gated_quantize(
        &self,
        out: &mut CudaQuantized,
        f: &mut CudaMatrix,
        wide: &mut CudaMatrix,
        a: Operand<'_, Self>,
        weights: &CudaLinear,
        between: (Activation, Option<usize>),
        scale: ActivationScale,
    ) -> Done {
        self.gated_codes(out, (f, wide), (a, weights), between, scale)
    }

    fn gemm_add_rms_norm_quantize(
        &self,
        out: &mut CudaQuantized,
        x: &mut CudaMatrix,
        (y, _h): (&mut CudaMatrix, &mut CudaMatrix),
        a: Operand<'_, Self>,
        weights: &CudaLinear,
        norm: (&CudaMatrix, f32),
        scale: ActivationScale,
    ) -> Done {
        self.added_codes(out, (x, y), (a, weights), norm, scale)
    }

    fn cache_write(
        &self,
        cache: &mut CudaCache,
        layer: usize,
        x: &CudaMatrix,
        keys: Columns,
        values: Columns,
        step: &CudaStep,
    ) -> Done {
        self.write_cache(cache, layer, x, (keys, values), step)
    }

    fn rope_cache_write(
        &self,
        cache: &mut CudaCache,
        layer: usize,
        x: &mut CudaMatrix,
        columns: [Columns; 3],
        head_dim: usize,
        angles: &CudaMatrix,
        step: &CudaStep,
    ) -> Done {
        self.rotate_and_write_cache(
            (cache, layer),
            x,
            (columns, RotatedQueries::All),
            (head_dim, angles),
            step,
        )
    }

    fn rope_cache_write_attention_quantize(
        &self,
        out: (&mut CudaQuantized, ActivationScale),
        c: &mut CudaMatrix,
        cache: &mut CudaCache,
        layer: usize,
        x: &mut CudaMatrix,
        columns: [Columns; 3],
        angles: (usize, &CudaMatrix),
        params: &AttentionParams,
        step: &CudaStep,
    ) -> Done {
        self.attend_joined(out, c, (cache, layer), (x, columns), angles, (params, step))
    }

    fn attention(
        &self,
        out: &mut CudaMatrix,
        x: &CudaMatrix,
        queries: Columns,
        cache: &CudaCache,
        layer: usize,
        params: &AttentionParams,
        step: &CudaStep,
    ) -> Done {
        self.attend(out, (x, queries), (cache, layer), params, step)
    }

    fn rope(&self, x: &mut CudaMatrix, columns: Columns, head_dim: usize, angles: &CudaMatrix) -> Done {
        self.operation("rope", &[x.rows, columns.len()], || {
            let heads = (x.part(columns), head_dim);
            self.rows
                .rope
                .launch(&x.buffer, x.rows, heads, (&angles.buffer, angles.columns))
        })
    }

    fn gated(&self, out: &mut CudaMatrix, x: &CudaMatrix, f: Activation) -> Done {
        self.gate(out, x, Input::F32, f)
    }

    fn activate(&self, x: &mut CudaMatrix, f: Activation) -> Done {
        self.activate_all(x, f)
    }

    fn soft_cap(&self, x: &mut CudaMatrix, cap: f32) -> Done {
        self.cap_all(x, cap)
    }

    fn hadamard(&self, x: &mut CudaMatrix, block: usize) -> Done {
        check_blocks(x.columns, block);
        self.operation("hadamard", &[x.rows, x.columns, block], || {
            self.rows.hadamard.launch(&x.buffer, x.shape(), block)
        })
    }

    fn add(&self, x: &mut CudaMatrix, y: &CudaMatrix) -> Done {
        self.sum(x, y, Input::F32)
    }

    fn gather(&self, out: &mut CudaMatrix, x: &CudaMatrix, rows: &CudaIndices) -> Done {
        let shape = (rows.len, x.columns);
        self.resize(out, "gather", shape)?;
        self.operation("gather", &[shape.0, shape.1], || {
            self.rows
                .gather_f32
                .launch(&out.buffer, &x.buffer, &rows.buffer, shape)
        })
    }

    fn log_softmax(&self, x: &mut CudaMatrix) -> Done {
        self.operation("log_softmax", &[x.rows, x.columns], || {
            self.logits.log_softmax.launch(&x.buffer, x.rows, x.columns)
        })
    }

    fn experts(&self, linears: Vec<CudaLinear>) -> Result<Experts, DeviceError> {
        self.new_experts(linears)
    }

    fn experts_bytes(&self, experts: &Experts) -> usize {
        experts.bytes()
    }

    fn routing(&self, shape: RoutingShape) -> Result<Routing, DeviceError> {
        self.new_routing(shape)
    }

    fn route(
        &self,
        routing: &mut Routing,
        logits: &CudaMatrix,
        bias: Option<&CudaMatrix>,
        rule: &RoutingRule,
    ) -> Done {
        self.choose_experts(routing, logits, bias, rule)
    }

    fn gemm_experts(
        &self,
        out: &mut CudaMatrix,
        a: (Operand<'_, Self>, ExpertInput),
        experts: &Experts,
        routing: &mut Routing,
    ) -> Done {
        self.products_of_experts(out, a, experts, routing)
    }

    fn combine(
        &self,
        x: &mut CudaMatrix,
        y: &CudaMatrix,
        shared: Option<&CudaMatrix>,
        routing: &Routing,
    ) -> Done {
        self.combine_experts(x, y, shared, routing)
    }

    fn gather_expert(
        &self,
        out: &mut CudaMatrix,
        x: (&CudaMatrix, ExpertInput),
        routing: &Routing,
        expert: usize,
    ) -> Done {
        self.rows_of_expert(out, x, routing, expert)
    }

    fn sampler(&self, shape: SamplerShape) -> Result<Sampler, DeviceError> {
        self.buffer("sampler", Sampler::size_bytes(shape), || {
            Sampler::new(&self.gpu, shape)
        })
    }

    fn begin_sampling(
        &self,
        sampler: &mut Sampler,
        slot: usize,
        params: &SamplingParams,
        prompt: &[u32],
        generated: &[u32],
    ) -> Done {
        self.operation("begin_sampling", &[prompt.len(), generated.len()], || {
            sampler.begin(slot, params, prompt, generated)
        })
    }

    fn mask_sampling(&self, sampler: &mut Sampler, slot: usize, mask: Option<&TokenMask>) -> Done {
        self.operation("mask_sampling", &[slot], || {
            sampler.mask_by(slot, mask, |buffer, offset_bytes, words| {
                self.staging.copy(buffer, offset_bytes, words)
            })
        })
    }

    fn sample(&self, sampler: &mut Sampler, logits: &CudaMatrix, rows: &SampleRows) -> Done {
        assert_eq!(logits.rows, rows.len(), "rows of logits to sample");
        self.operation("sample", &[logits.rows, logits.columns], || {
            self.logits.sampling.launch(sampler, &logits.buffer, rows)
        })
    }

    fn read_samples(&self, sampler: &mut Sampler) -> Result<Vec<Sample>, DeviceError> {
        self.operation("read_samples", &[], || sampler.read())
    }

    fn forget_samples(&self, sampler: &mut Sampler) {
        sampler.forget();
    }

    fn last_tokens(&self, ids: &mut CudaIndices, sampler: &Sampler, rows: &SampleRows) -> Done {
        let room = dualgrain_device::Capacity::new(ids.capacity, 1);
        room.check("last_tokens", || self.name.clone(), (rows.len(), 1))?;
        self.operation("last_tokens", &[rows.len()], || {
            self.logits.last_tokens.launch(&ids.buffer, sampler, rows)
        })?;
        ids.len = rows.len();
        Ok(())
    }

    fn works_ahead(&self) -> bool {
        true
    }
}

/// Parameters of a norm over `columns` elements.
fn norm_weights<'a>(
    weight: &'a CudaMatrix,
    bias: Option<&'a CudaMatrix>,
    eps: f32,
    columns: usize,
) -> NormWeights<'a> {
    for parameter in [Some(weight), bias].into_iter().flatten() {
        assert_eq!(parameter.shape(), (1, columns), "shape of a norm's parameter");
    }
    NormWeights {
        weight: &weight.buffer,
        bias: bias.map(|bias| &bias.buffer),
        eps,
    }
}
