//! The contract of a device for the CPU: shapes are checked and rows handed to the threads here, the work is in the other
//! rooms.

use std::ops::Range;

use dualgrain_device::sampling::{HostSampler, Sample, SampleRow, SamplerShape, SamplingParams, TokenMask};
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Columns, Device, DeviceError,
    Done, ExpertInput, HostStep, Operand, RoutingRule, RoutingShape, StepLayout, StepLimits, check_blocks,
    refill,
};
use dualgrain_format::{FloatValues, LinearWeights};
use dualgrain_threads::SharedSlice;

use super::cpu_device::CpuDevice;
use super::linear::{Linear, Packed};
use super::mixture::Routing;
use super::row_tasks::{CHUNK_ELEMENTS, one_row};
use crate::attention::tasks::attention;
use crate::float::gemm;
use crate::gemm_w4a8::epilogue::Sink;
use crate::gemm_w4a8::product;
use crate::kv_cache::storage::Cache;
use crate::kv_cache::write::write;
use crate::rows::{elementwise, hadamard, log_softmax, norm, norm_quantize, quantize, rope, sampling};
use crate::tensor::matrix::Matrix;
use crate::tensor::quantized::Quantized;
use crate::tensor::table::Table;

impl Device for CpuDevice {
    type Matrix = Matrix;
    type Quantized = Quantized;
    type Linear = Linear;
    type Table = Table;
    type Cache = Cache;
    type Indices = Vec<u32>;
    type Step = HostStep;
    type Experts = Vec<Linear>;
    type Routing = Routing;
    type Sampler = HostSampler;
    type SampleRows = Vec<SampleRow>;

    fn name(&self) -> String {
        format!("the CPU ({}, {} threads)", self.isa().name(), self.num_threads())
    }

    fn matrix(&self, capacity: usize, columns: usize) -> Result<Matrix, DeviceError> {
        Ok(Matrix::new(capacity, columns))
    }

    fn quantized(&self, capacity: usize, columns: usize) -> Result<Quantized, DeviceError> {
        Ok(Quantized::new(self.isa(), capacity, columns))
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
    ) -> Result<Linear, E> {
        Linear::from_slices((&self.name(), self.isa(), self.pool()), shape, slices)
    }

    fn table(&self, values: FloatValues, columns: usize) -> Result<Table, DeviceError> {
        Table::new(|| self.name(), values, columns)
    }

    fn cache(&self, shape: CacheShape, format: &CacheFormat) -> Result<Cache, DeviceError> {
        Cache::new(&self.name(), shape, format)
    }

    fn rows(&self, x: &Matrix) -> usize {
        x.rows
    }

    fn columns(&self, x: &Matrix) -> usize {
        x.columns
    }

    fn linear_n(&self, linear: &Linear) -> usize {
        linear.n()
    }

    fn linear_bytes(&self, linear: &Linear) -> usize {
        linear.bytes()
    }

    fn cache_bytes(&self, cache: &Cache) -> usize {
        cache.bytes()
    }

    fn upload(&self, x: &mut Matrix, values: &[f32]) -> Done {
        assert!(
            x.columns > 0 && values.len().is_multiple_of(x.columns),
            "{} values for {} columns",
            values.len(),
            x.columns
        );
        self.reshape(x, "upload", (values.len() / x.columns, x.columns))?;
        x.values_mut().copy_from_slice(values);
        Ok(())
    }

    fn download(&self, x: &Matrix, rows: Range<usize>, out: &mut [f32]) -> Done {
        out.copy_from_slice(&x.values()[rows.start * x.columns..rows.end * x.columns]);
        Ok(())
    }

    fn upload_indices(&self, indices: &mut Vec<u32>, values: &[u32]) -> Done {
        refill(indices, "upload_indices", || self.name(), values)
    }

    fn upload_sample_rows(&self, rows: &mut Vec<SampleRow>, values: &[SampleRow]) -> Done {
        refill(rows, "upload_sample_rows", || self.name(), values)
    }

    fn upload_step(&self, step: &mut HostStep, layout: &StepLayout<'_>) -> Done {
        step.fill(layout);
        Ok(())
    }

    fn embed(&self, x: &mut Matrix, table: &Table, ids: &Vec<u32>) -> Done {
        self.fill(x, "embed", (ids.len(), table.columns), |row, out| {
            elementwise::embed(self.isa(), &table.values, ids[row], out);
        })
    }

    fn rms_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, eps: f32) -> Done {
        let weight = one_row("weight", weight, x.columns);
        self.fill(out, "rms_norm", (x.rows, x.columns), |row, out| {
            norm::rms_norm(self.isa(), x.row(row), weight, eps, out)
        })
    }

    fn rms_norm_heads(&self, x: &mut Matrix, columns: Columns, weight: &Matrix, eps: f32) -> Done {
        let weight = one_row("weight", weight, weight.columns);
        assert!(
            columns.len().is_multiple_of(weight.len()),
            "{columns:?} in heads of {}",
            weight.len()
        );
        let width = x.columns;
        self.for_rows(x.values_mut(), width, |_, row| {
            norm::rms_norm_heads(self.isa(), &mut row[columns.clone()], weight, eps);
        });
        Ok(())
    }

    fn layer_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, bias: &Matrix, eps: f32) -> Done {
        let (weight, bias) = (
            one_row("weight", weight, x.columns),
            one_row("bias", bias, x.columns),
        );
        self.fill(out, "layer_norm", (x.rows, x.columns), |row, out| {
            norm::layer_norm(self.isa(), x.row(row), weight, bias, eps, out);
        })
    }

    fn quantize(&self, out: &mut Quantized, x: &Matrix, scale: ActivationScale) -> Done {
        self.fill_quantized(out, "quantize", (x.rows, x.columns), |row, place| {
            quantize::quantize(self.isa(), x.row(row), scale, place)
        })
    }

    fn rms_norm_quantize(
        &self,
        out: &mut Quantized,
        _: &mut Matrix,
        x: &Matrix,
        weight: &Matrix,
        eps: f32,
        scale: ActivationScale,
    ) -> Done {
        let weight = one_row("weight", weight, x.columns);
        self.fill_quantized(out, "rms_norm_quantize", (x.rows, x.columns), |row, place| {
            norm_quantize::rms_norm_quantize(self.isa(), x.row(row), weight, eps, scale, place)
        })
    }

    fn layer_norm_quantize(
        &self,
        out: &mut Quantized,
        _: &mut Matrix,
        x: &Matrix,
        (weight, bias): (&Matrix, &Matrix),
        eps: f32,
        scale: ActivationScale,
    ) -> Done {
        let weight = one_row("weight", weight, x.columns);
        let bias = one_row("bias", bias, x.columns);
        self.fill_quantized(out, "layer_norm_quantize", (x.rows, x.columns), |row, place| {
            norm_quantize::layer_norm_quantize(self.isa(), x.row(row), weight, bias, eps, scale, place)
        })
    }

    fn will_read(&self, next: &Linear) {
        let stream = match &next.0 {
            Packed::Int(packed) if self.pool().num_threads() > 1 => {
                Some(product::stream(packed, self.pool()))
            }
            _ => None,
        };
        self.set_next(stream);
    }

    fn gemm(&self, out: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) -> Done {
        let n = self.linear_n(weights);
        match (a, &weights.0) {
            (Operand::Float(a), Packed::Float(packed)) => {
                assert_eq!(a.columns, packed.k(), "columns of A and K of the weights");
                self.reshape(out, "gemm", (a.rows, n))?;
                gemm::gemm(self.isa(), self.pool(), a.values(), packed, out.values_mut());
            }
            (Operand::Int8(a), Packed::Int(packed)) => {
                self.integer_product(out, a, packed, Sink::Output)?;
            }
            (Operand::Float(_), Packed::Int(_)) => {
                panic!("integer weights take INT8 activations, got floats")
            }
            (Operand::Int8(_), Packed::Float(_)) => panic!("float weights take float activations, got INT8"),
        }
        Ok(())
    }

    fn gemm_rounded(&self, out: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) -> Done {
        match (a, &weights.0) {
            (Operand::Int8(a), Packed::Int(packed)) => {
                self.integer_product(out, a, packed, |d| Sink::rounded(d, packed))
            }
            (a, _) => self.gemm(out, a, weights),
        }
    }

    fn rope(&self, x: &mut Matrix, columns: Columns, head_dim: usize, angles: &Matrix) -> Done {
        assert_eq!(x.rows, angles.rows, "rows of x and of the angles");
        assert!(
            angles.columns <= head_dim && angles.columns.is_multiple_of(2),
            "{} angles",
            angles.columns
        );
        assert!(
            columns.len().is_multiple_of(head_dim),
            "{columns:?} in heads of {head_dim}"
        );
        let width = x.columns;
        self.for_rows(x.values_mut(), width, |row, values| {
            rope::rope(
                self.isa(),
                &mut values[columns.clone()],
                head_dim,
                angles.row(row),
            );
        });
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
        write((self.isa(), self.pool()), cache, layer, x, (keys, values), step);
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
        self.reshape(out, "attention", (x.rows, queries.len()))?;
        attention(
            (self.isa(), self.pool()),
            out,
            x,
            queries,
            cache,
            layer,
            params,
            step,
        );
        Ok(())
    }

    fn gated(&self, out: &mut Matrix, x: &Matrix, f: Activation) -> Done {
        assert!(
            x.columns.is_multiple_of(2),
            "gate and up in {} columns",
            x.columns
        );
        self.fill(out, "gated", (x.rows, x.columns / 2), |row, out| {
            elementwise::gated(self.isa(), x.row(row), f, out)
        })
    }

    fn gemm_gated(
        &self,
        out: &mut Matrix,
        wide: &mut Matrix,
        a: Operand<'_, Self>,
        weights: &Linear,
        f: Activation,
    ) -> Done {
        match (a, &weights.0) {
            (Operand::Int8(a), Packed::Int(packed)) if product::can_gate(self.isa(), a.view(), packed) => {
                self.reshape(out, "gemm_gated", (a.rows, packed.n() / 2))?;
                let sink = Sink::Gated(SharedSlice::new(out.values_mut()), f);
                product::gemm(self.isa(), self.pool(), a.view(), packed, self.take_next(), &sink);
                Ok(())
            }
            (a, _) => {
                self.gemm_rounded(wide, a, weights)?;
                self.gated(out, wide, f)
            }
        }
    }

    fn gemm_add(&self, x: &mut Matrix, y: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) -> Done {
        if let (Operand::Int8(a), Packed::Int(packed)) = (&a, &weights.0) {
            assert_eq!((x.rows, x.columns), (a.rows, packed.n()), "shapes of the terms");
            let sink = Sink::Added(SharedSlice::new(x.values_mut()));
            product::gemm(self.isa(), self.pool(), a.view(), packed, self.take_next(), &sink);
            return Ok(());
        }
        self.gemm(y, a, weights)?;
        self.add(x, y)
    }

    fn activate(&self, x: &mut Matrix, f: Activation) -> Done {
        self.pool()
            .for_each_chunk(x.values_mut(), CHUNK_ELEMENTS, |_, x| {
                elementwise::activate(self.isa(), x, f)
            });
        Ok(())
    }

    fn soft_cap(&self, x: &mut Matrix, cap: f32) -> Done {
        self.pool()
            .for_each_chunk(x.values_mut(), CHUNK_ELEMENTS, |_, x| {
                elementwise::soft_cap(self.isa(), x, cap)
            });
        Ok(())
    }

    fn hadamard(&self, x: &mut Matrix, block: usize) -> Done {
        check_blocks(x.columns, block);
        let columns = x.columns;
        self.for_rows(x.values_mut(), columns, |_, row| {
            hadamard::hadamard(self.isa(), row, block)
        });
        Ok(())
    }

    fn hadamard_quantize(
        &self,
        out: &mut Quantized,
        x: &mut Matrix,
        block: usize,
        scale: ActivationScale,
    ) -> Done {
        self.transform_and_quantize(out, x, block, scale)
    }

    fn add(&self, x: &mut Matrix, y: &Matrix) -> Done {
        assert_eq!((x.rows, x.columns), (y.rows, y.columns), "shapes of the terms");
        self.pool()
            .for_each_chunk(x.values_mut(), CHUNK_ELEMENTS, |chunk, x| {
                let start = chunk * CHUNK_ELEMENTS;
                elementwise::add(self.isa(), x, &y.values()[start..start + x.len()]);
            });
        Ok(())
    }

    fn gather(&self, out: &mut Matrix, x: &Matrix, rows: &Vec<u32>) -> Done {
        self.fill(out, "gather", (rows.len(), x.columns), |row, out| {
            out.copy_from_slice(x.row(rows[row] as usize))
        })
    }

    fn log_softmax(&self, x: &mut Matrix) -> Done {
        let columns = x.columns;
        self.for_rows(x.values_mut(), columns, |_, row| {
            log_softmax::log_softmax(self.isa(), row)
        });
        Ok(())
    }

    fn experts(&self, linears: Vec<Linear>) -> Result<Vec<Linear>, DeviceError> {
        Ok(linears)
    }

    fn experts_bytes(&self, experts: &Vec<Linear>) -> usize {
        experts.iter().map(Linear::bytes).sum()
    }

    fn routing(&self, shape: RoutingShape) -> Result<Routing, DeviceError> {
        Ok(Routing::new(shape))
    }

    fn route(
        &self,
        routing: &mut Routing,
        logits: &Matrix,
        bias: Option<&Matrix>,
        rule: &RoutingRule,
    ) -> Done {
        self.choose_experts(routing, logits, bias, rule)
    }

    fn gemm_experts(
        &self,
        out: &mut Matrix,
        a: (Operand<'_, Self>, ExpertInput),
        experts: &Vec<Linear>,
        routing: &mut Routing,
    ) -> Done {
        self.products_of_experts(out, a, experts, routing)
    }

    fn combine(&self, x: &mut Matrix, y: &Matrix, shared: Option<&Matrix>, routing: &Routing) -> Done {
        self.combine_experts(x, y, shared, routing.host());
        Ok(())
    }

    fn gather_expert(
        &self,
        out: &mut Matrix,
        x: (&Matrix, ExpertInput),
        routing: &Routing,
        expert: usize,
    ) -> Done {
        self.rows_of_expert(out, x, routing.host(), expert)
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
        sampler.begin(slot, params, prompt, generated);
        Ok(())
    }

    fn mask_sampling(&self, sampler: &mut HostSampler, slot: usize, mask: Option<&TokenMask>) -> Done {
        sampler.set_mask(slot, mask);
        Ok(())
    }

    fn sample(&self, sampler: &mut HostSampler, logits: &Matrix, rows: &Vec<SampleRow>) -> Done {
        assert_eq!(logits.rows, rows.len(), "rows of logits to sample");
        sampling::sample(self.pool(), sampler, logits, rows);
        Ok(())
    }

    fn read_samples(&self, sampler: &mut HostSampler) -> Result<Vec<Sample>, DeviceError> {
        Ok(sampler.read())
    }

    fn forget_samples(&self, sampler: &mut HostSampler) {
        sampler.forget();
    }

    fn last_tokens(&self, ids: &mut Vec<u32>, sampler: &HostSampler, rows: &Vec<SampleRow>) -> Done {
        ids.clear();
        ids.extend(sampler.last_tokens(rows));
        Ok(())
    }
}
