//! `Device` for the CPU: shapes are checked and rows handed to the pool here, the work is in the other files.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use dualgrain_format::{FloatValues, LinearWeights};

use crate::attention::tasks::attention;
use crate::float::gemm::{self, PackedFloat};
use crate::float::{gram, quadratic_form};
use crate::gemm_w4a8::epilogue::Sink;
use crate::gemm_w4a8::packed::PackedInt;
use crate::gemm_w4a8::product;
use crate::isa::{Isa, not_available};
use crate::kv_cache::storage::Cache;
use crate::kv_cache::write::write;
use crate::rows::quantize::Place;
use crate::rows::{elementwise, log_softmax, norm, norm_quantize, quantize, rope};
use crate::tensor::matrix::Matrix;
use crate::tensor::quantized::{Quantized, QuantizedParts};
use crate::tensor::table::Table;
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Columns, Device, DeviceError,
    Gram, Operand, SLICE_ROWS, Step,
};
use dualgrain_threads::Pool;
use dualgrain_threads::SharedSlice;
use dualgrain_threads::Stream;

/// Elements of a row operation that are worth a chunk of their own (a few microseconds).
const CHUNK_ELEMENTS: usize = 16 * 1024;

/// The CPU as a device. Cloning shares the threads.
#[derive(Clone)]
pub struct CpuDevice {
    isa: Isa,
    pool: Arc<Pool>,
    /// What the product after the next one reads.
    next: Arc<Mutex<Option<Stream>>>,
}

/// Weights packed for the CPU.
#[derive(Debug)]
pub struct Linear(Packed);

#[derive(Debug)]
enum Packed {
    Float(PackedFloat),
    Int(PackedInt),
}

impl Packed {
    /// Room for a layer `[n,k]` in the scheme of `slice`.
    fn empty_for(shape: (usize, usize), slice: &LinearWeights) -> Result<Self, DeviceError> {
        Ok(match slice {
            LinearWeights::Float(linear) => Self::Float(PackedFloat::empty_for(shape, linear)?),
            LinearWeights::W8(_) => Self::Int(PackedInt::empty_w8(shape)?),
            LinearWeights::W4(linear) => Self::Int(PackedInt::empty_w4(shape, linear)?),
        })
    }

    /// Packs rows from `first` on, the first of a panel.
    fn put(&mut self, device: &CpuDevice, first: usize, slice: &LinearWeights) {
        let (isa, pool) = (device.isa, &*device.pool);
        match (self, slice) {
            (Self::Float(packed), LinearWeights::Float(linear)) => packed.put(isa, pool, first, linear),
            (Self::Int(packed), LinearWeights::W8(linear)) => packed.put_w8(pool, first, linear),
            (Self::Int(packed), LinearWeights::W4(linear)) => packed.put_w4(pool, first, linear),
            _ => panic!("slices of a layer in different schemes"),
        }
    }
}

impl CpuDevice {
    /// The fastest instruction set of this machine (or the one `DUALGRAIN_BACKEND` names) on `num_threads` threads;
    /// 0 means all cores.
    ///
    /// # Errors
    /// [`DeviceError::InstructionSet`] when `DUALGRAIN_BACKEND` names one that is unknown or not here.
    pub fn new(num_threads: usize) -> Result<Self, DeviceError> {
        Self::with_isa(num_threads, Isa::chosen()?)
    }

    /// As [`Self::new`], with a given instruction set.
    ///
    /// # Errors
    /// [`DeviceError::InstructionSet`] when this machine does not have it.
    pub fn with_isa(num_threads: usize, isa: Isa) -> Result<Self, DeviceError> {
        if !isa.is_available() {
            return Err(not_available(isa.name()));
        }
        let all_cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let num_threads = if num_threads == 0 {
            all_cores()
        } else {
            num_threads
        };
        Ok(Self {
            isa,
            pool: Arc::new(Pool::new(num_threads)),
            next: Arc::default(),
        })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The i32 sums `[M,N]` of an integer product before the epilogue, for tests that compare instruction sets.
    ///
    /// # Panics
    /// When `weights` are float weights or the shapes do not fit.
    pub fn gemm_acc(&self, a: &Quantized, weights: &Linear) -> Vec<i32> {
        let Packed::Int(packed) = &weights.0 else {
            panic!("float weights have no integer sums")
        };
        let mut sums = vec![0; a.rows * packed.n()];
        product::gemm(
            self.isa,
            &self.pool,
            a,
            packed,
            None,
            &Sink::Sums(SharedSlice::new(&mut sums)),
        );
        sums
    }

    /// Replaces the contents by codes `[rows, columns]` and scales `[rows]` from the host.
    ///
    /// # Panics
    /// When the lengths do not fit or a code is -128, which no quantization makes.
    pub fn upload_int8(&self, x: &mut Quantized, codes: &[i8], scales: &[f32]) {
        assert_eq!(
            codes.len(),
            scales.len() * x.columns,
            "codes for {} rows",
            scales.len()
        );
        assert!(!codes.contains(&i8::MIN), "code -128");
        x.upload(codes, scales);
    }

    /// Runs `f(first_row, rows)` for runs of rows of `columns` elements.
    fn for_rows(&self, values: &mut [f32], columns: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        if values.is_empty() {
            return;
        }
        let rows = CHUNK_ELEMENTS.div_ceil(columns.max(1));
        self.pool
            .for_each_chunk(values, rows * columns, |chunk_idx, chunk| {
                for (row, values) in chunk.chunks_exact_mut(columns).enumerate() {
                    f(chunk_idx * rows + row, values);
                }
            });
    }

    fn take_next(&self) -> Option<Stream> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Resizes `out` to `rows` x `columns` and runs `f(row_idx, row)`.
    fn fill(&self, out: &mut Matrix, rows: usize, columns: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        out.columns = columns;
        out.resize(rows);
        self.for_rows(out.values_mut(), columns, f);
    }

    /// Resizes `out` to `shape` and runs `f(row_idx, place)`, which gives the row's scale.
    fn fill_quantized(
        &self,
        out: &mut Quantized,
        (rows, columns): (usize, usize),
        f: impl Fn(usize, Place<'_>) -> f32 + Sync,
    ) {
        out.columns = columns;
        let (layout, blocks) = (out.resize(rows), out.blocks());
        let QuantizedParts {
            quads,
            scales,
            block_sums,
        } = out.parts_mut();
        let (quads, scales, sums) = (
            SharedSlice::new(quads),
            SharedSlice::new(scales),
            SharedSlice::new(block_sums),
        );
        // Whole tiles, since their rows lie side by side.
        let rows_per_chunk = CHUNK_ELEMENTS
            .div_ceil(columns.max(1))
            .next_multiple_of(layout.tile_rows);
        self.pool.run(rows.div_ceil(rows_per_chunk), |chunk| {
            let rows = chunk * rows_per_chunk..((chunk + 1) * rows_per_chunk).min(rows);
            let first_row = rows.start;
            let tiles =
                rows.start * layout.row_quads..rows.end.next_multiple_of(layout.tile_rows) * layout.row_quads;
            // SAFETY: each tile belongs to one chunk.
            let quads = unsafe { quads.range(tiles) };
            for row in rows {
                // SAFETY: each row belongs to one chunk.
                let (scale, block_sums) = unsafe {
                    (
                        scales.range(row..row + 1),
                        sums.range(row * blocks..(row + 1) * blocks),
                    )
                };
                let quads = &mut quads[layout.row(row - first_row)..];
                scale[0] = f(
                    row,
                    Place {
                        quads,
                        layout,
                        block_sums,
                    },
                );
            }
        });
    }
}

fn one_row<'a>(what: &str, x: &'a Matrix, columns: usize) -> &'a [f32] {
    assert_eq!(
        (x.rows, x.columns),
        (1, columns),
        "{what} of shape {}x{}, expected 1x{columns}",
        x.rows,
        x.columns
    );
    x.row(0)
}

impl Device for CpuDevice {
    type Matrix = Matrix;
    type Quantized = Quantized;
    type Linear = Linear;
    type Table = Table;
    type Cache = Cache;

    fn matrix(&self, capacity: usize, columns: usize) -> Matrix {
        Matrix::new(capacity, columns)
    }

    fn quantized(&self, capacity: usize, columns: usize) -> Quantized {
        Quantized::new(self.isa, capacity, columns)
    }

    fn pack_slices<E: From<DeviceError>>(
        &self,
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, E>>,
    ) -> Result<Linear, E> {
        let (mut packed, mut rows) = (None, 0);
        for slice in slices {
            let slice = slice?;
            assert_eq!(slice.k(), shape.1, "K of a slice");
            assert!(
                rows % SLICE_ROWS == 0 && rows + slice.n() <= shape.0,
                "a slice of {} rows at row {rows} of {}",
                slice.n(),
                shape.0
            );
            let packed = match &mut packed {
                Some(packed) => packed,
                none => none.insert(Packed::empty_for(shape, &slice)?),
            };
            packed.put(self, rows, &slice);
            rows += slice.n();
        }
        assert_eq!(rows, shape.0, "rows of all slices");
        let none = DeviceError::Length {
            what: "rows of a layer",
            expected: 1,
            got: 0,
        };
        Ok(Linear(packed.ok_or(none)?))
    }

    fn table(&self, values: FloatValues, columns: usize) -> Result<Table, DeviceError> {
        let len = values.len();
        if columns == 0 || !len.is_multiple_of(columns) {
            let expected = if columns == 0 {
                0
            } else {
                len.next_multiple_of(columns)
            };
            return Err(DeviceError::Length {
                what: "embedding table",
                expected,
                got: len,
            });
        }
        Ok(Table { values, columns })
    }

    fn cache(&self, shape: CacheShape, format: &CacheFormat) -> Result<Cache, DeviceError> {
        Cache::new(shape, format)
    }

    fn rows(&self, x: &Matrix) -> usize {
        x.rows
    }

    fn columns(&self, x: &Matrix) -> usize {
        x.columns
    }

    fn linear_n(&self, linear: &Linear) -> usize {
        match &linear.0 {
            Packed::Float(packed) => packed.n(),
            Packed::Int(packed) => packed.n(),
        }
    }

    fn linear_bytes(&self, linear: &Linear) -> usize {
        match &linear.0 {
            Packed::Float(packed) => packed.bytes(),
            Packed::Int(packed) => packed.bytes(),
        }
    }

    fn cache_bytes(&self, cache: &Cache) -> usize {
        cache.bytes()
    }

    fn upload(&self, x: &mut Matrix, values: &[f32]) {
        assert!(
            x.columns > 0 && values.len().is_multiple_of(x.columns),
            "{} values for {} columns",
            values.len(),
            x.columns
        );
        x.resize(values.len() / x.columns);
        x.values_mut().copy_from_slice(values);
    }

    fn download(&self, x: &Matrix, rows: Range<usize>, out: &mut [f32]) {
        out.copy_from_slice(&x.values()[rows.start * x.columns..rows.end * x.columns]);
    }

    fn embed(&self, x: &mut Matrix, table: &Table, ids: &[u32]) {
        self.fill(x, ids.len(), table.columns, |row, out| {
            elementwise::embed(self.isa, &table.values, ids[row], out);
        });
    }

    fn rms_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, eps: f32) {
        let weight = one_row("weight", weight, x.columns);
        self.fill(out, x.rows, x.columns, |row, out| {
            norm::rms_norm(self.isa, x.row(row), weight, eps, out)
        });
    }

    fn rms_norm_heads(&self, x: &mut Matrix, columns: Columns, weight: &Matrix, eps: f32) {
        let weight = one_row("weight", weight, weight.columns);
        assert!(
            columns.len().is_multiple_of(weight.len()),
            "{columns:?} in heads of {}",
            weight.len()
        );
        let width = x.columns;
        self.for_rows(x.values_mut(), width, |_, row| {
            norm::rms_norm_heads(self.isa, &mut row[columns.clone()], weight, eps);
        });
    }

    fn layer_norm(&self, out: &mut Matrix, x: &Matrix, weight: &Matrix, bias: &Matrix, eps: f32) {
        let (weight, bias) = (
            one_row("weight", weight, x.columns),
            one_row("bias", bias, x.columns),
        );
        self.fill(out, x.rows, x.columns, |row, out| {
            norm::layer_norm(self.isa, x.row(row), weight, bias, eps, out);
        });
    }

    fn quantize(&self, out: &mut Quantized, x: &Matrix, scale: ActivationScale) {
        self.fill_quantized(out, (x.rows, x.columns), |row, place| {
            quantize::quantize(self.isa, x.row(row), scale, place)
        });
    }

    fn rms_norm_quantize(
        &self,
        out: &mut Quantized,
        _: &mut Matrix,
        x: &Matrix,
        weight: &Matrix,
        eps: f32,
        scale: ActivationScale,
    ) {
        let weight = one_row("weight", weight, x.columns);
        self.fill_quantized(out, (x.rows, x.columns), |row, place| {
            norm_quantize::rms_norm_quantize(self.isa, x.row(row), weight, eps, scale, place)
        });
    }

    fn layer_norm_quantize(
        &self,
        out: &mut Quantized,
        _: &mut Matrix,
        x: &Matrix,
        (weight, bias): (&Matrix, &Matrix),
        eps: f32,
        scale: ActivationScale,
    ) {
        let weight = one_row("weight", weight, x.columns);
        let bias = one_row("bias", bias, x.columns);
        self.fill_quantized(out, (x.rows, x.columns), |row, place| {
            norm_quantize::layer_norm_quantize(self.isa, x.row(row), weight, bias, eps, scale, place)
        });
    }

    fn will_read(&self, next: &Linear) {
        let stream = match &next.0 {
            Packed::Int(packed) if self.pool.num_threads() > 1 => Some(product::stream(packed, &self.pool)),
            _ => None,
        };
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    fn gemm(&self, out: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) {
        out.columns = self.linear_n(weights);
        match (a, &weights.0) {
            (Operand::Float(a), Packed::Float(packed)) => {
                assert_eq!(a.columns, packed.k(), "columns of A and K of the weights");
                out.resize(a.rows);
                gemm::gemm(self.isa, &self.pool, a.values(), packed, out.values_mut());
            }
            (Operand::Int8(a), Packed::Int(packed)) => {
                out.resize(a.rows);
                let sink = Sink::Output(SharedSlice::new(out.values_mut()));
                product::gemm(self.isa, &self.pool, a, packed, self.take_next(), &sink);
            }
            (Operand::Float(_), Packed::Int(_)) => {
                panic!("integer weights take INT8 activations, got floats")
            }
            (Operand::Int8(_), Packed::Float(_)) => panic!("float weights take float activations, got INT8"),
        }
    }

    fn rope(&self, x: &mut Matrix, columns: Columns, head_dim: usize, angles: &Matrix) {
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
            rope::rope(self.isa, &mut values[columns.clone()], head_dim, angles.row(row));
        });
    }

    fn cache_write(
        &self,
        cache: &mut Cache,
        layer: usize,
        x: &Matrix,
        keys: Columns,
        values: Columns,
        step: &Step<'_>,
    ) {
        write((self.isa, &self.pool), cache, layer, x, (keys, values), step);
    }

    fn attention(
        &self,
        out: &mut Matrix,
        x: &Matrix,
        queries: Columns,
        cache: &Cache,
        layer: usize,
        params: &AttentionParams,
        step: &Step<'_>,
    ) {
        attention(
            (self.isa, &self.pool),
            out,
            x,
            queries,
            cache,
            layer,
            params,
            step,
        );
    }

    fn gated(&self, out: &mut Matrix, x: &Matrix, f: Activation) {
        assert!(
            x.columns.is_multiple_of(2),
            "gate and up in {} columns",
            x.columns
        );
        self.fill(out, x.rows, x.columns / 2, |row, out| {
            elementwise::gated(self.isa, x.row(row), f, out)
        });
    }

    fn gemm_gated(
        &self,
        out: &mut Matrix,
        wide: &mut Matrix,
        a: Operand<'_, Self>,
        weights: &Linear,
        f: Activation,
    ) {
        match (a, &weights.0) {
            (Operand::Int8(a), Packed::Int(packed)) if product::can_gate(self.isa, a, packed) => {
                out.columns = packed.n() / 2;
                out.resize(a.rows);
                let sink = Sink::Gated(SharedSlice::new(out.values_mut()), f);
                product::gemm(self.isa, &self.pool, a, packed, self.take_next(), &sink);
            }
            (a, _) => {
                self.gemm(wide, a, weights);
                self.gated(out, wide, f);
            }
        }
    }

    fn gemm_add(&self, x: &mut Matrix, y: &mut Matrix, a: Operand<'_, Self>, weights: &Linear) {
        match (a, &weights.0) {
            (Operand::Int8(a), Packed::Int(packed)) => {
                assert_eq!((x.rows, x.columns), (a.rows, packed.n()), "shapes of the terms");
                let sink = Sink::Added(SharedSlice::new(x.values_mut()));
                product::gemm(self.isa, &self.pool, a, packed, self.take_next(), &sink);
            }
            (a, _) => {
                self.gemm(y, a, weights);
                self.add(x, y);
            }
        }
    }

    fn activate(&self, x: &mut Matrix, f: Activation) {
        self.pool.for_each_chunk(x.values_mut(), CHUNK_ELEMENTS, |_, x| {
            elementwise::activate(self.isa, x, f)
        });
    }

    fn add(&self, x: &mut Matrix, y: &Matrix) {
        assert_eq!((x.rows, x.columns), (y.rows, y.columns), "shapes of the terms");
        self.pool
            .for_each_chunk(x.values_mut(), CHUNK_ELEMENTS, |chunk, x| {
                let start = chunk * CHUNK_ELEMENTS;
                elementwise::add(self.isa, x, &y.values()[start..start + x.len()]);
            });
    }

    fn gather(&self, out: &mut Matrix, x: &Matrix, rows: &[u32]) {
        self.fill(out, rows.len(), x.columns, |row, out| {
            out.copy_from_slice(x.row(rows[row] as usize))
        });
    }

    fn log_softmax(&self, x: &mut Matrix) {
        let columns = x.columns;
        self.for_rows(x.values_mut(), columns, |_, row| {
            log_softmax::log_softmax(self.isa, row)
        });
    }

    fn gram_accumulate(&self, gram: &mut Gram, x: &Matrix) {
        gram::accumulate(self.isa, &self.pool, gram, x);
    }

    fn quadratic_rows(&self, gram: &Gram, errors: &[f32], out: &mut [f64]) {
        quadratic_form::quadratic_forms(self.isa, &self.pool, gram, errors, out);
    }

    fn abs_max(&self, x: &Matrix, columns: Columns, maxima: &mut [f32]) {
        assert_eq!(columns.len(), maxima.len(), "columns and maxima");
        // Columns are shared out, so that a maximum has one owner.
        self.pool.for_each_chunk(maxima, 512, |chunk, maxima| {
            let start = columns.start + chunk * 512;
            for row in 0..x.rows {
                elementwise::abs_max(self.isa, &x.row(row)[start..start + maxima.len()], maxima);
            }
        });
    }

    fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        self.pool.for_each_chunk(data, chunk, f);
    }

    fn num_threads(&self) -> usize {
        self.pool.num_threads()
    }
}
