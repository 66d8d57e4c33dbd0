//! The contract, operation by operation, by the functions of the specification.

use std::ops::Range;

use dualgrain_format::{FloatValues, LinearWeights};

use super::buffers::{Matrix, Quantized, Table, has_room};
use super::cache::{Cache, HeadOf};
use super::{NAME, NaiveDevice, products};
use crate::naive::{self, Scoring};
use crate::sampling::{HostSampler, Sample, SampleRow, SamplerShape, SamplingParams, TokenMask};
use crate::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Capacity, Columns, Device,
    DeviceError, Done, ExpertInput, HostRouting, HostStep, Operand, RoutingRule, RoutingShape, StepLayout,
    StepLimits, check_blocks, refill,
};

impl Device for NaiveDevice {
    type Matrix = Matrix;
    type Quantized = Quantized;
    type Linear = LinearWeights;
    type Table = Table;
    type Cache = Cache;
    type Indices = Vec<u32>;
    type Step = HostStep;
    type Experts = Vec<LinearWeights>;
    type Routing = HostRouting;
    type Sampler = HostSampler;
    type SampleRows = Vec<SampleRow>;

    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn matrix(&self, capacity: usize, columns: usize) -> Result<Matrix, DeviceError> {
        Ok(Matrix::new(capacity, columns))
    }

    fn quantized(&self, capacity: usize, columns: usize) -> Result<Quantized, DeviceError> {
        Ok(Quantized::new(capacity, columns))
    }

    fn indices(&self, capacity: usize) -> Result<Vec<u32>, DeviceError> {
        Ok(Vec::with_capacity(capacity))
    }

    fn sample_rows(&self, capacity: usize) -> Result<Vec<SampleRow>, DeviceError> {
        Ok(Vec::with_capacity(capacity))
    }

    fn step(&self, limits: StepLimits) -> Result<HostStep, DeviceError> {
        Ok(HostStep::new(limits))
    }

    fn pack_slices<E: From<DeviceError>>(
        &self,
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, E>>,
    ) -> Result<LinearWeights, E> {
        products::join(shape, slices)
    }

    fn table(&self, values: FloatValues, columns: usize) -> Result<Table, DeviceError> {
        let got = values.len();
        match columns > 0 && got.is_multiple_of(columns) {
            true => Ok(Table { values, columns }),
            false => Err(DeviceError::Length {
                what: "embedding table",
                device: NAME.to_owned(),
                expected: got.checked_next_multiple_of(columns).unwrap_or(0),
                got,
            }),
        }
    }

    fn cache(&self, shape: CacheShape, format: &CacheFormat) -> Result<Cache, DeviceError> {
        Cache::new(shape, format)
    }

    fn rows(&self, x: &Matrix) -> usize {
        x.rows()
    }

    fn columns(&self, x: &Matrix) -> usize {
        x.columns
    }

    fn linear_n(&self, linear: &LinearWeights) -> usize {
        linear.n()
    }

    fn linear_bytes(&self, linear: &LinearWeights) -> usize {
        // Codes, or floats as they are; scales and biases are left out.
        let weights = linear.n() * linear.k();
        match linear {
            LinearWeights::Float(_) => 4 * weights,
            LinearWeights::W8(_) => weights,
            LinearWeights::W4(_) => weights / 2,
        }
    }

    fn cache_bytes(&self, cache: &Cache) -> usize {
        cache.bytes()
    }

    fn upload(&self, x: &mut Matrix, values: &[f32]) -> Done {
        self.begin("upload", &[values.len()])?;
        assert!(
            values.len().is_multiple_of(x.columns),
            "{} values for {} columns",
            values.len(),
            x.columns
        );
        has_room(x.capacity, "upload", (values.len() / x.columns, x.columns))?;
        x.resize(values.len() / x.columns, x.columns);
        x.values.copy_from_slice(values);
        Ok(())
    }

    fn download(&self, x: &Matrix, rows: Range<usize>, out: &mut [f32]) -> Done {
        self.begin("download", &[rows.len(), x.columns])?;
        out.copy_from_slice(&x.values[rows.start * x.columns..rows.end * x.columns]);
        Ok(())
    }

    fn upload_indices(&self, indices: &mut Vec<u32>, values: &[u32]) -> Done {
        self.begin("upload_indices", &[values.len()])?;
        refill(indices, "upload_indices", || NAME.to_owned(), values)
    }

    fn upload_sample_rows(&self, rows: &mut Vec<SampleRow>, values: &[SampleRow]) -> Done {
        self.begin("upload_sample_rows", &[values.len()])?;
        refill(rows, "upload_sample_rows", || NAME.to_owned(), values)
    }

    fn upload_step(&self, step: &mut HostStep, layout: &StepLayout<'_>) -> Done {
        self.begin("upload_step", &[layout.positions.len(), layout.page_tables.len()])?;
        step.fill(layout);
        Ok(())
    }

    fn embed(&self, x: &mut Matrix, table: &Table, ids: &Vec<u32>) -> Done {
        self.begin("embed", &[ids.len(), table.columns])?;
        has_room(x.capacity, "embed", (ids.len(), table.columns))?;
        x.resize(ids.len(), table.columns);
        let entries = table.values.len() / table.columns;
        for (row, &id) in x.iter_mut().zip(ids) {
            match self.is_spoiled(id, entries) {
                true => row.fill(f32::NAN),
                false => naive::embed(&table.values, id, row),
            }
        }
        Ok(())
    }

    fn rms_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, eps: f32) -> Done {
        self.begin("rms_norm", &[x.rows(), x.columns])?;
        let weight = weight.one_row("weight", x.columns);
        has_room(out.capacity, "rms_norm", (x.rows(), x.columns))?;
        out.resize(x.rows(), x.columns);
        out.iter_mut()
            .zip(x.iter())
            .for_each(|(out, x)| naive::rms_norm(x, weight, eps, out));
        Ok(())
    }

    fn rms_norm_heads(&self, x: &mut Matrix, columns: Columns, weight: &Matrix, eps: f32) -> Done {
        self.begin("rms_norm_heads", &[x.rows(), columns.len()])?;
        let weight = weight.one_row("weight", weight.columns);
        for row in x.iter_mut() {
            for head in row[columns.clone()].chunks_exact_mut(weight.len()) {
                let x = head.to_vec();
                naive::rms_norm(&x, weight, eps, head);
            }
        }
        Ok(())
    }

    fn layer_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, bias: &Matrix, eps: f32) -> Done {
        self.begin("layer_norm", &[x.rows(), x.columns])?;
        let (weight, bias) = (
            weight.one_row("weight", x.columns),
            bias.one_row("bias", x.columns),
        );
        has_room(out.capacity, "layer_norm", (x.rows(), x.columns))?;
        out.resize(x.rows(), x.columns);
        out.iter_mut()
            .zip(x.iter())
            .for_each(|(out, x)| naive::layer_norm(x, weight, bias, eps, out));
        Ok(())
    }

    fn quantize(&self, out: &mut Quantized, x: &Matrix, scale: ActivationScale) -> Done {
        self.begin("quantize", &[x.rows(), x.columns])?;
        has_room(out.capacity, "quantize", (x.rows(), x.columns))?;
        out.resize(x.rows(), x.columns);
        let rows = out.codes.chunks_exact_mut(x.columns).zip(&mut out.scales);
        for ((codes, ta), x) in rows.zip(x.iter()) {
            *ta = naive::quantize_row(x, scale, codes);
        }
        Ok(())
    }

    fn gemm(&self, out: &mut Matrix, a: Operand<'_, Self>, weights: &LinearWeights) -> Done {
        let (rows, n) = (products::rows(&a), weights.n());
        self.begin("gemm", &[rows, n, weights.k()])?;
        has_room(out.capacity, "gemm", (rows, n))?;
        out.resize(rows, n);
        products::gemm(&a, 0..rows, weights, &mut out.values);
        Ok(())
    }

    fn gemm_rounded(&self, out: &mut Matrix, a: Operand<'_, Self>, weights: &LinearWeights) -> Done {
        self.gemm(out, a, weights)?;
        if matches!(weights, LinearWeights::W4(_)) {
            out.values.iter_mut().for_each(|v| *v = naive::to_bf16(*v));
        }
        Ok(())
    }

    fn rope(&self, x: &mut Matrix, columns: Columns, head_dim: usize, angles: &Matrix) -> Done {
        self.begin("rope", &[x.rows(), columns.len()])?;
        for (row, angles) in x.iter_mut().zip(angles.iter()) {
            let (cos, sin) = angles.split_at(angles.len() / 2);
            for head in row[columns.clone()].chunks_exact_mut(head_dim) {
                naive::rope_head(head, cos, sin);
            }
        }
        Ok(())
    }

    fn cache_write(
        &self,
        cache: &mut Cache,
        layer: usize,
        x: &Matrix,
        keys: Columns,
        values: Columns,
        step: &HostStep,
    ) -> Done {
        self.begin("cache_write", &[x.rows(), keys.len()])?;
        let dim = cache.shape().head_dim;
        for (token, row) in x.iter().enumerate() {
            let heads = row[keys.clone()]
                .chunks_exact(dim)
                .zip(row[values.clone()].chunks_exact(dim));
            for (kv_head, (key, value)) in heads.enumerate() {
                let head = HeadOf {
                    layer,
                    kv_head,
                    pages: step.page_table(token),
                };
                cache.write(head, step.positions()[token] as usize, key, value);
            }
        }
        Ok(())
    }

    fn attention(
        &self,
        out: &mut Matrix,
        x: &Matrix,
        queries: Columns,
        cache: &Cache,
        layer: usize,
        params: &AttentionParams,
        step: &HostStep,
    ) -> Done {
        self.begin("attention", &[x.rows(), params.num_heads, cache.shape().head_dim])?;
        let (dim, group) = (
            cache.shape().head_dim,
            params.num_heads / cache.shape().num_kv_heads,
        );
        has_room(out.capacity, "attention", (x.rows(), params.num_heads * dim))?;
        out.resize(x.rows(), params.num_heads * dim);
        for (token, out) in out.iter_mut().enumerate() {
            let last = step.positions()[token] as usize;
            let first = params
                .sliding_window
                .map_or(0, |window| (last + 1).saturating_sub(window));
            let row = &x.row(token)[queries.clone()];
            for (head, (q, out)) in row.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
                let scoring = Scoring::of(params, head);
                let cached = HeadOf {
                    layer,
                    kv_head: head / group,
                    pages: step.page_table(token),
                };
                cache.attend(cached, q, (first, last), scoring, out);
            }
        }
        Ok(())
    }

    fn gated(&self, out: &mut Matrix, x: &Matrix, f: Activation) -> Done {
        self.begin("gated", &[x.rows(), x.columns])?;
        has_room(out.capacity, "gated", (x.rows(), x.columns / 2))?;
        out.resize(x.rows(), x.columns / 2);
        out.iter_mut()
            .zip(x.iter())
            .for_each(|(out, x)| naive::gated(x, f, out));
        Ok(())
    }

    fn activate(&self, x: &mut Matrix, f: Activation) -> Done {
        self.begin("activate", &[x.rows(), x.columns])?;
        naive::activate(&mut x.values, f);
        Ok(())
    }

    fn soft_cap(&self, x: &mut Matrix, cap: f32) -> Done {
        self.begin("soft_cap", &[x.rows(), x.columns])?;
        naive::soft_cap(&mut x.values, cap);
        Ok(())
    }

    fn hadamard(&self, x: &mut Matrix, block: usize) -> Done {
        self.begin("hadamard", &[x.rows(), x.columns, block])?;
        check_blocks(x.columns, block);
        x.iter_mut().for_each(|row| naive::hadamard(row, block));
        Ok(())
    }

    fn add(&self, x: &mut Matrix, y: &Matrix) -> Done {
        self.begin("add", &[x.rows(), x.columns])?;
        assert_eq!((x.rows(), x.columns), (y.rows(), y.columns), "shapes of a sum");
        naive::add(&mut x.values, &y.values);
        Ok(())
    }

    fn gather(&self, out: &mut Matrix, x: &Matrix, rows: &Vec<u32>) -> Done {
        self.begin("gather", &[rows.len(), x.columns])?;
        has_room(out.capacity, "gather", (rows.len(), x.columns))?;
        out.resize(rows.len(), x.columns);
        naive::gather(&x.values, x.columns, rows, &mut out.values);
        Ok(())
    }

    fn log_softmax(&self, x: &mut Matrix) -> Done {
        self.begin("log_softmax", &[x.rows(), x.columns])?;
        x.iter_mut().for_each(naive::log_softmax);
        Ok(())
    }

    fn experts(&self, linears: Vec<LinearWeights>) -> Result<Vec<LinearWeights>, DeviceError> {
        Ok(linears)
    }

    fn experts_bytes(&self, experts: &Vec<LinearWeights>) -> usize {
        experts.iter().map(|linear| self.linear_bytes(linear)).sum()
    }

    fn routing(&self, shape: RoutingShape) -> Result<HostRouting, DeviceError> {
        Ok(HostRouting::new(shape))
    }

    fn route(
        &self,
        routing: &mut HostRouting,
        logits: &Matrix,
        bias: Option<&Matrix>,
        rule: &RoutingRule,
    ) -> Done {
        self.begin("route", &[logits.rows(), logits.columns])?;
        let shape = (logits.rows(), logits.columns);
        has_room(Capacity::new(routing.shape().tokens, shape.1), "route", shape)?;
        routing.assert_fits(logits.columns, rule);
        let num_experts = routing.shape().num_experts;
        let bias = bias.map(|bias| bias.one_row("bias", num_experts));
        for (mut token, logits) in routing.begin(logits.rows()).zip(logits.iter()) {
            naive::route_token(&mut token, logits, bias, rule, num_experts);
        }
        routing.sort();
        Ok(())
    }

    fn gemm_experts(
        &self,
        out: &mut Matrix,
        (a, input): (Operand<'_, Self>, ExpertInput),
        experts: &Vec<LinearWeights>,
        routing: &mut HostRouting,
    ) -> Done {
        let n = experts[0].n();
        self.begin("gemm_experts", &[routing.num_rows(), n, experts[0].k()])?;
        has_room(out.capacity, "gemm_experts", (routing.num_rows(), n))?;
        out.resize(routing.num_rows(), n);
        for (expert, linear) in experts.iter().enumerate() {
            for row in routing.rows_of(expert) {
                let source = input.row(row, routing);
                products::gemm(
                    &a,
                    source..source + 1,
                    linear,
                    &mut out.values[row * n..(row + 1) * n],
                );
            }
        }
        Ok(())
    }

    fn combine(&self, x: &mut Matrix, y: &Matrix, shared: Option<&Matrix>, routing: &HostRouting) -> Done {
        self.begin("combine", &[x.rows(), x.columns])?;
        assert_eq!(
            (routing.num_rows(), x.columns),
            (y.rows(), y.columns),
            "outputs of the experts"
        );
        for (token, x) in x.iter_mut().enumerate() {
            naive::combine(
                x,
                &y.values,
                shared.map(|shared| shared.row(token)),
                routing,
                token,
            );
        }
        Ok(())
    }

    fn gather_expert(
        &self,
        out: &mut Matrix,
        (x, input): (&Matrix, ExpertInput),
        routing: &HostRouting,
        expert: usize,
    ) -> Done {
        let rows = routing.rows_of(expert);
        self.begin("gather_expert", &[rows.len(), x.columns])?;
        has_room(out.capacity, "gather_expert", (rows.len(), x.columns))?;
        out.resize(rows.len(), x.columns);
        for (out, row) in out.iter_mut().zip(rows) {
            out.copy_from_slice(x.row(input.row(row, routing)));
        }
        Ok(())
    }

    fn sampler(&self, shape: SamplerShape) -> Result<HostSampler, DeviceError> {
        Ok(HostSampler::new(shape))
    }

    fn begin_sampling(
        &self,
        sampler: &mut HostSampler,
        slot: usize,
        params: &SamplingParams,
        prompt: &[u32],
        generated: &[u32],
    ) -> Done {
        self.begin("begin_sampling", &[prompt.len(), generated.len()])?;
        sampler.begin(slot, params, prompt, generated);
        Ok(())
    }

    fn mask_sampling(&self, sampler: &mut HostSampler, slot: usize, mask: Option<&TokenMask>) -> Done {
        self.begin("mask_sampling", &[slot])?;
        sampler.set_mask(slot, mask);
        Ok(())
    }

    fn sample(&self, sampler: &mut HostSampler, logits: &Matrix, rows: &Vec<SampleRow>) -> Done {
        self.begin("sample", &[rows.len(), logits.columns])?;
        assert_eq!(logits.rows(), rows.len(), "rows of logits to sample");
        let choose = |(logits, row): (&[f32], &SampleRow)| {
            let (params, counts) = sampler.slot(row.slot);
            naive::sample_masked(logits, params, counts, sampler.mask(row.slot), row.position)
        };
        let samples = logits.iter().zip(rows).map(choose).collect();
        sampler.keep(rows, samples);
        Ok(())
    }

    fn read_samples(&self, sampler: &mut HostSampler) -> Result<Vec<Sample>, DeviceError> {
        self.begin("read_samples", &[])?;
        Ok(sampler.read())
    }

    fn forget_samples(&self, sampler: &mut HostSampler) {
        sampler.forget();
    }

    fn last_tokens(&self, ids: &mut Vec<u32>, sampler: &HostSampler, rows: &Vec<SampleRow>) -> Done {
        self.begin("last_tokens", &[rows.len()])?;
        ids.clear();
        ids.extend(sampler.last_tokens(rows));
        Ok(())
    }

    fn works_ahead(&self) -> bool {
        self.works_ahead
    }
}
