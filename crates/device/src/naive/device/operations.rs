//! The contract, operation by operation, by the functions of the specification.

use std::ops::Range;

use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};

use super::buffers::{Matrix, Quantized, Table};
use super::cache::{Cache, HeadOf};
use super::{NAME, NaiveDevice};
use crate::naive::{self, Scoring};
use crate::sampling::{HostSampler, Sample, SampleRow, SamplerShape, SamplingParams, TokenMask};
use crate::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Capacity, Columns, Device,
    DeviceError, Done, Gram, HostStep, Operand, SLICE_ROWS, StepLayout, StepLimits, check_blocks, refill,
};

impl Device for NaiveDevice {
    type Matrix = Matrix;
    type Quantized = Quantized;
    type Linear = LinearWeights;
    type Table = Table;
    type Cache = Cache;
    type Indices = Vec<u32>;
    type Step = HostStep;
    type Gram = Gram;
    type GramView<'a> = &'a Gram;
    type OutputErrors = Vec<f64>;
    type Maxima = Vec<f32>;
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
        let (mut all, mut rows) = (Vec::new(), 0);
        for slice in slices {
            let slice = slice?;
            assert!(rows % SLICE_ROWS == 0, "a slice at row {rows}");
            rows += slice.n();
            all.push(slice);
        }
        assert_eq!(rows, shape.0, "rows of all slices");
        let none = DeviceError::Length {
            what: "rows of a layer",
            device: NAME.to_owned(),
            expected: 1,
            got: 0,
        };
        LinearWeights::join(all).map_err(|_| E::from(none))
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
        let (n, k) = (weights.n(), weights.k());
        match (a, weights) {
            (Operand::Float(a), LinearWeights::Float(linear)) => {
                self.begin("gemm", &[a.rows(), n, k])?;
                assert_eq!(a.columns, k, "columns of A and K of the weights");
                has_room(out.capacity, "gemm", (a.rows(), n))?;
                out.resize(a.rows(), n);
                float_product(a, linear, out);
            }
            (Operand::Int8(a), integers) => {
                self.begin("gemm", &[a.scales.len(), n, k])?;
                assert_eq!(a.columns, k, "columns of A and K of the weights");
                has_room(out.capacity, "gemm", (a.scales.len(), n))?;
                out.resize(a.scales.len(), n);
                integer_product(a, integers, out);
            }
            (Operand::Float(_), _) => panic!("integer weights take INT8 activations, got floats"),
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

    fn gram(&self, k: usize) -> Result<Gram, DeviceError> {
        Ok(Gram::new(k))
    }

    fn gram_accumulate(&self, gram: &mut Gram, x: &Matrix) -> Done {
        self.begin("gram_accumulate", &[x.rows(), x.columns])?;
        let k = gram.k();
        naive::gram_accumulate(gram.accumulate_parts(x.rows()), &x.values, k);
        Ok(())
    }

    fn gram_to_host(&self, gram: Gram) -> Result<Gram, DeviceError> {
        self.begin("gram_to_host", &[gram.k()])?;
        Ok(gram)
    }

    fn view_gram<'a>(&self, gram: &'a Gram) -> Result<&'a Gram, DeviceError> {
        self.begin("view_gram", &[gram.k()])?;
        Ok(gram)
    }

    fn output_errors(&self, capacity: usize) -> Result<Vec<f64>, DeviceError> {
        Ok(Vec::with_capacity(capacity))
    }

    fn compute_output_errors(&self, out: &mut Vec<f64>, gram: &&Gram, errors: &[f32]) -> Done {
        let (rows, k) = (errors.len() / gram.k(), gram.k());
        self.begin("compute_output_errors", &[rows, k])?;
        has_room(
            Capacity::new(out.capacity(), 1),
            "compute_output_errors",
            (rows, 1),
        )?;
        out.clear();
        let errors = errors.chunks_exact(k);
        out.extend(errors.map(|errors| naive::quadratic_row(gram.values(), errors)));
        Ok(())
    }

    fn read_output_errors(&self, errors: &Vec<f64>, out: &mut [f64]) -> Done {
        self.begin("read_output_errors", &[errors.len()])?;
        out.copy_from_slice(errors);
        Ok(())
    }

    fn maxima(&self, columns: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![0.0; columns])
    }

    fn abs_max(&self, x: &Matrix, columns: Columns, maxima: &mut Vec<f32>) -> Done {
        self.begin("abs_max", &[x.rows(), columns.len()])?;
        x.iter()
            .for_each(|row| naive::abs_max(&row[columns.clone()], maxima));
        Ok(())
    }

    fn read_maxima(&self, maxima: &Vec<f32>) -> Result<Vec<f32>, DeviceError> {
        self.begin("read_maxima", &[maxima.len()])?;
        Ok(maxima.clone())
    }
}

/// Whether an output has room for a shape.
fn has_room(output: Capacity, operation: &'static str, shape: (usize, usize)) -> Done {
    output.check(operation, || NAME.to_owned(), shape)
}

fn float_product(a: &Matrix, linear: &FloatLinear, out: &mut Matrix) {
    naive::gemm_float(&a.values, linear, &mut out.values);
}

fn integer_product(a: &Quantized, weights: &LinearWeights, out: &mut Matrix) {
    let mut acc = vec![0; out.values.len()];
    match weights {
        LinearWeights::W8(linear) => naive::gemm_w8a8(&a.codes, &a.scales, linear, &mut acc, &mut out.values),
        LinearWeights::W4(linear) => naive::gemm_w4a8(&a.codes, &a.scales, linear, &mut acc, &mut out.values),
        LinearWeights::Float(_) => panic!("float weights take float activations, got INT8"),
    }
}
