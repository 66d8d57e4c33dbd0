//! The contract: every operation goes to the device that was chosen.

use std::ops::Range;

use dualgrain_device::sampling::{Sample, SampleRow, SamplerShape, SamplingParams, TokenMask};
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Columns, Device, DeviceError,
    Done, ExpertInput, Operand, Outputs, RoutingRule, RoutingShape, StepLayout, StepLimits,
};
use dualgrain_format::{FloatValues, LinearWeights};

use super::AnyDevice;
use super::buffers::{
    Cache, Experts, Indices, Linear, Matrix, Quantized, Routing, SampleRows, Sampler, Step, Table,
};

impl Device for AnyDevice {
    type Matrix = Matrix;
    type Quantized = Quantized;
    type Linear = Linear;
    type Table = Table;
    type Cache = Cache;
    type Indices = Indices;
    type Step = Step;
    type Experts = Experts;
    type Routing = Routing;
    type Sampler = Sampler;
    type SampleRows = SampleRows;

    fn name(&self) -> String {
        call!(self, [], |device| device.name())
    }

    fn matrix(&self, capacity: usize, columns: usize) -> Result<Matrix, DeviceError> {
        make!(self, Matrix, |device| device.matrix(capacity, columns))
    }

    fn quantized(&self, capacity: usize, columns: usize) -> Result<Quantized, DeviceError> {
        make!(self, Quantized, |device| device.quantized(capacity, columns))
    }

    fn indices(&self, capacity: usize) -> Result<Indices, DeviceError> {
        make!(self, Indices, |device| device.indices(capacity))
    }

    fn sample_rows(&self, capacity: usize) -> Result<SampleRows, DeviceError> {
        make!(self, SampleRows, |device| device.sample_rows(capacity))
    }

    fn step(&self, limits: StepLimits) -> Result<Step, DeviceError> {
        make!(self, Step, |device| device.step(limits))
    }

    fn pack_slices<E: From<DeviceError>>(
        &self,
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, E>>,
    ) -> Result<Linear, E> {
        make!(self, Linear, |device| device.pack_slices(shape, slices))
    }

    fn table(&self, values: FloatValues, columns: usize) -> Result<Table, DeviceError> {
        make!(self, Table, |device| device.table(values, columns))
    }

    fn cache(&self, shape: CacheShape, format: &CacheFormat) -> Result<Cache, DeviceError> {
        make!(self, Cache, |device| device.cache(shape, format))
    }

    fn rows(&self, x: &Matrix) -> usize {
        call!(self, [x: Matrix], |device| device.rows(x))
    }

    fn columns(&self, x: &Matrix) -> usize {
        call!(self, [x: Matrix], |device| device.columns(x))
    }

    fn linear_n(&self, linear: &Linear) -> usize {
        call!(self, [linear: Linear], |device| device.linear_n(linear))
    }

    fn linear_bytes(&self, linear: &Linear) -> usize {
        call!(self, [linear: Linear], |device| device.linear_bytes(linear))
    }

    fn cache_bytes(&self, cache: &Cache) -> usize {
        call!(self, [cache: Cache], |device| device.cache_bytes(cache))
    }

    fn upload(&self, x: &mut Matrix, values: &[f32]) -> Done {
        call!(self, [x: Matrix], |device| device.upload(x, values))
    }

    fn download(&self, x: &Matrix, rows: Range<usize>, out: &mut [f32]) -> Done {
        call!(self, [x: Matrix], |device| device.download(x, rows, out))
    }

    fn upload_indices(&self, indices: &mut Indices, values: &[u32]) -> Done {
        call!(self, [indices: Indices], |device| device
            .upload_indices(indices, values))
    }

    fn upload_sample_rows(&self, rows: &mut SampleRows, values: &[SampleRow]) -> Done {
        call!(self, [rows: SampleRows], |device| device
            .upload_sample_rows(rows, values))
    }

    fn upload_step(&self, step: &mut Step, layout: &StepLayout<'_>) -> Done {
        call!(self, [step: Step], |device| device.upload_step(step, layout))
    }

    fn run_step(&self, step: &Step, run: &mut dyn FnMut() -> Done) -> Done {
        call!(self, [step: Step], |device| device.run_step(step, run))
    }

    fn embed(&self, x: &mut Matrix, table: &Table, ids: &Indices) -> Done {
        call!(self, [x: Matrix, table: Table, ids: Indices], |device| device
            .embed(x, table, ids))
    }

    fn rms_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, eps: f32) -> Done {
        call!(self, [out: Matrix, x: Matrix, weight: Matrix], |device| device
            .rms_norm(out, x, weight, eps))
    }

    fn rms_norm_heads(&self, x: &mut Matrix, columns: Columns, weight: &Matrix, eps: f32) -> Done {
        call!(self, [x: Matrix, weight: Matrix], |device| device
            .rms_norm_heads(x, columns, weight, eps))
    }

    fn layer_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, bias: &Matrix, eps: f32) -> Done {
        call!(self, [out: Matrix, x: Matrix, weight: Matrix, bias: Matrix], |device| {
            device.layer_norm(out, x, weight, bias, eps)
        })
    }

    fn quantize(&self, out: &mut Quantized, x: &Matrix, scale: ActivationScale) -> Done {
        call!(self, [out: Quantized, x: Matrix], |device| device
            .quantize(out, x, scale))
    }

    fn hadamard(&self, x: &mut Matrix, block: usize) -> Done {
        call!(self, [x: Matrix], |device| device.hadamard(x, block))
    }

    fn hadamard_quantize(
        &self,
        out: &mut Quantized,
        x: &mut Matrix,
        block: usize,
        scale: ActivationScale,
    ) -> Done {
        call!(self, [out: Quantized, x: Matrix], |device| device
            .hadamard_quantize(out, x, block, scale))
    }

    fn rms_norm_quantize(
        &self,
        out: &mut Quantized,
        h: &mut Matrix,
        x: &Matrix,
        weight: &Matrix,
        eps: f32,
        scale: ActivationScale,
    ) -> Done {
        call!(self, [out: Quantized, h: Matrix, x: Matrix, weight: Matrix], |device| {
            device.rms_norm_quantize(out, h, x, weight, eps, scale)
        })
    }

    fn layer_norm_quantize(
        &self,
        out: &mut Quantized,
        h: &mut Matrix,
        x: &Matrix,
        (weight, bias): (&Matrix, &Matrix),
        eps: f32,
        scale: ActivationScale,
    ) -> Done {
        call!(self, [out: Quantized, h: Matrix, x: Matrix, weight: Matrix, bias: Matrix], |device| {
            device.layer_norm_quantize(out, h, x, (weight, bias), eps, scale)
        })
    }

    fn prepare(&self, linears: &[(&Linear, Outputs)], max_tokens: usize) -> Result<bool, DeviceError> {
        match self {
            Self::Cpu(_) => {
                let _ = (linears, max_tokens);
                Ok(false)
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(card) => {
                let on_card = linears.iter().filter_map(|(linear, outputs)| match linear {
                    Linear::Cuda(linear) => Some((linear, *outputs)),
                    Linear::Cpu(_) => None,
                });
                card.device.prepare(&on_card.collect::<Vec<_>>(), max_tokens)
            }
        }
    }

    fn will_read(&self, next: &Linear) {
        call!(self, [next: Linear], |device| device.will_read(next))
    }

    fn gemm(&self, out: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) -> Done {
        product!(self, a, [out: Matrix, weights: Linear], |device, a| device
            .gemm(out, a, weights))
    }

    fn gemm_gated(
        &self,
        out: &mut Matrix,
        wide: &mut Matrix,
        a: Operand<'_, Self>,
        weights: &Linear,
        f: Activation,
    ) -> Done {
        product!(self, a, [out: Matrix, wide: Matrix, weights: Linear], |device, a| {
            device.gemm_gated(out, wide, a, weights, f)
        })
    }

    fn gemm_rounded(&self, out: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) -> Done {
        product!(self, a, [out: Matrix, weights: Linear], |device, a| {
            device.gemm_rounded(out, a, weights)
        })
    }

    fn gemm_add(&self, x: &mut Matrix, y: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) -> Done {
        product!(self, a, [x: Matrix, y: Matrix, weights: Linear], |device, a| {
            device.gemm_add(x, y, a, weights)
        })
    }

    fn gemm_gated_quantize(
        &self,
        out: &mut Quantized,
        f: &mut Matrix,
        wide: &mut Matrix,
        a: Operand<'_, Self>,
        weights: &Linear,
        between: (Activation, Option<usize>),
        scale: ActivationScale,
    ) -> Done {
        product!(self, a, [out: Quantized, f: Matrix, wide: Matrix, weights: Linear], |device, a| {
            device.gemm_gated_quantize(out, f, wide, a, weights, between, scale)
        })
    }

    fn gemm_add_rms_norm_quantize(
        &self,
        out: &mut Quantized,
        x: &mut Matrix,
        (y, h): (&mut Matrix, &mut Matrix),
        a: Operand<'_, Self>,
        weights: &Linear,
        (norm, eps): (&Matrix, f32),
        scale: ActivationScale,
    ) -> Done {
        product!(
            self,
            a,
            [out: Quantized, x: Matrix, y: Matrix, h: Matrix, weights: Linear, norm: Matrix],
            |device, a| {
                device.gemm_add_rms_norm_quantize(out, x, (y, h), a, weights, (norm, eps), scale)
            }
        )
    }

    fn rope_cache_write(
        &self,
        cache: &mut Cache,
        layer: usize,
        x: &mut Matrix,
        columns: [Columns; 3],
        head_dim: usize,
        angles: &Matrix,
        step: &Step,
    ) -> Done {
        call!(self, [cache: Cache, x: Matrix, angles: Matrix, step: Step], |device| device
            .rope_cache_write(cache, layer, x, columns, head_dim, angles, step))
    }

    fn rope_cache_write_attention_quantize(
        &self,
        (out, scale): (&mut Quantized, ActivationScale),
        c: &mut Matrix,
        cache: &mut Cache,
        layer: usize,
        x: &mut Matrix,
        columns: [Columns; 3],
        (head_dim, angles): (usize, &Matrix),
        params: &AttentionParams,
        step: &Step,
    ) -> Done {
        call!(
            self,
            [out: Quantized, c: Matrix, x: Matrix, cache: Cache, angles: Matrix, step: Step],
            |device| {
                let (out, angles) = ((out, scale), (head_dim, angles));
                device.rope_cache_write_attention_quantize(
                    out, c, cache, layer, x, columns, angles, params, step,
                )
            }
        )
    }

    fn rope(&self, x: &mut Matrix, columns: Columns, head_dim: usize, angles: &Matrix) -> Done {
        call!(self, [x: Matrix, angles: Matrix], |device| device
            .rope(x, columns, head_dim, angles))
    }

    fn cache_write(
        &self,
        cache: &mut Cache,
        layer: usize,
        x: &Matrix,
        keys: Columns,
        values: Columns,
        step: &Step,
    ) -> Done {
        call!(self, [cache: Cache, x: Matrix, step: Step], |device| device
            .cache_write(cache, layer, x, keys, values, step))
    }

    fn attention(
        &self,
        out: &mut Matrix,
        x: &Matrix,
        queries: Columns,
        cache: &Cache,
        layer: usize,
        params: &AttentionParams,
        step: &Step,
    ) -> Done {
        call!(self, [out: Matrix, x: Matrix, cache: Cache, step: Step], |device| {
            device.attention(out, x, queries, cache, layer, params, step)
        })
    }

    fn gated(&self, out: &mut Matrix, x: &Matrix, f: Activation) -> Done {
        call!(self, [out: Matrix, x: Matrix], |device| device.gated(out, x, f))
    }

    fn activate(&self, x: &mut Matrix, f: Activation) -> Done {
        call!(self, [x: Matrix], |device| device.activate(x, f))
    }

    fn soft_cap(&self, x: &mut Matrix, cap: f32) -> Done {
        call!(self, [x: Matrix], |device| device.soft_cap(x, cap))
    }

    fn add(&self, x: &mut Matrix, y: &Matrix) -> Done {
        call!(self, [x: Matrix, y: Matrix], |device| device.add(x, y))
    }

    fn gather(&self, out: &mut Matrix, x: &Matrix, rows: &Indices) -> Done {
        call!(self, [out: Matrix, x: Matrix, rows: Indices], |device| device
            .gather(out, x, rows))
    }

    fn log_softmax(&self, x: &mut Matrix) -> Done {
        call!(self, [x: Matrix], |device| device.log_softmax(x))
    }

    fn experts(&self, linears: Vec<Linear>) -> Result<Experts, DeviceError> {
        let linears = linears.into_iter();
        match self {
            AnyDevice::Cpu(device) => device
                .experts(linears.map(Linear::of_cpu).collect())
                .map(Experts::Cpu),
            #[cfg(feature = "cuda")]
            AnyDevice::Cuda(card) => {
                let linears = linears.map(Linear::of_card).collect();
                card.device.experts(linears).map(Experts::Cuda)
            }
        }
    }

    fn experts_bytes(&self, experts: &Experts) -> usize {
        call!(self, [experts: Experts], |device| device.experts_bytes(experts))
    }

    fn routing(&self, shape: RoutingShape) -> Result<Routing, DeviceError> {
        make!(self, Routing, |device| device.routing(shape))
    }

    fn route(
        &self,
        routing: &mut Routing,
        logits: &Matrix,
        bias: Option<&Matrix>,
        rule: &RoutingRule,
    ) -> Done {
        match bias {
            Some(bias) => call!(self, [routing: Routing, logits: Matrix, bias: Matrix], |device| device
                .route(routing, logits, Some(bias), rule)),
            None => call!(self, [routing: Routing, logits: Matrix], |device| device
                .route(routing, logits, None, rule)),
        }
    }

    fn gemm_experts(
        &self,
        out: &mut Matrix,
        (a, input): (Operand<'_, Self>, ExpertInput),
        experts: &Experts,
        routing: &mut Routing,
    ) -> Done {
        product!(self, a, [out: Matrix, experts: Experts, routing: Routing], |device, a| device
            .gemm_experts(out, (a, input), experts, routing))
    }

    fn gemm_experts_gated(
        &self,
        out: &mut Matrix,
        wide: &mut Matrix,
        (a, input): (Operand<'_, Self>, ExpertInput),
        experts: &Experts,
        routing: &mut Routing,
        f: Activation,
    ) -> Done {
        product!(self, a, [out: Matrix, wide: Matrix, experts: Experts, routing: Routing], |device, a| device
            .gemm_experts_gated(out, wide, (a, input), experts, routing, f))
    }

    fn combine(&self, x: &mut Matrix, y: &Matrix, shared: Option<&Matrix>, routing: &Routing) -> Done {
        match shared {
            Some(shared) => {
                call!(self, [x: Matrix, y: Matrix, shared: Matrix, routing: Routing], |device| device
                .combine(x, y, Some(shared), routing))
            }
            None => call!(self, [x: Matrix, y: Matrix, routing: Routing], |device| device
                .combine(x, y, None, routing)),
        }
    }

    fn gather_expert(
        &self,
        out: &mut Matrix,
        (x, input): (&Matrix, ExpertInput),
        routing: &Routing,
        expert: usize,
    ) -> Done {
        call!(self, [out: Matrix, x: Matrix, routing: Routing], |device| device
            .gather_expert(out, (x, input), routing, expert))
    }

    fn sampler(&self, shape: SamplerShape) -> Result<Sampler, DeviceError> {
        make!(self, Sampler, |device| device.sampler(shape))
    }

    fn begin_sampling(
        &self,
        sampler: &mut Sampler,
        slot: usize,
        params: &SamplingParams,
        prompt: &[u32],
        generated: &[u32],
    ) -> Done {
        call!(self, [sampler: Sampler], |device| device
            .begin_sampling(sampler, slot, params, prompt, generated))
    }

    fn mask_sampling(&self, sampler: &mut Sampler, slot: usize, mask: Option<&TokenMask>) -> Done {
        call!(self, [sampler: Sampler], |device| device.mask_sampling(sampler, slot, mask))
    }

    fn sample(&self, sampler: &mut Sampler, logits: &Matrix, rows: &SampleRows) -> Done {
        call!(self, [sampler: Sampler, logits: Matrix, rows: SampleRows], |device| {
            device.sample(sampler, logits, rows)
        })
    }

    fn read_samples(&self, sampler: &mut Sampler) -> Result<Vec<Sample>, DeviceError> {
        call!(self, [sampler: Sampler], |device| device.read_samples(sampler))
    }

    fn forget_samples(&self, sampler: &mut Sampler) {
        call!(self, [sampler: Sampler], |device| device.forget_samples(sampler));
    }

    fn last_tokens(&self, ids: &mut Indices, sampler: &Sampler, rows: &SampleRows) -> Done {
        call!(self, [ids: Indices, sampler: Sampler, rows: SampleRows], |device| {
            device.last_tokens(ids, sampler, rows)
        })
    }

    fn works_ahead(&self) -> bool {
        call!(self, [], |device| device.works_ahead())
    }
}
