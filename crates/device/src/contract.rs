//! The list of operations a model is written in, over buffers only the device can look into.

use std::ops::Range;

use dualgrain_format::{FloatValues, LinearWeights};

use crate::DeviceError;

/// Tokens in one page of the KV cache.
pub const PAGE_TOKENS: usize = 64;

/// Largest head a device must be able to attend over.
pub const MAX_HEAD_DIM: usize = 512;

/// A contiguous range of a matrix's columns, e.g. the queries inside a joined [q|k|v] projection.
pub type Columns = Range<usize>;

/// Where the INT8 activation scale comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ActivationScale {
    /// `ta[m] = max|row m| / 127`; an all-zero token gets `ta = 0` and zero codes.
    PerToken,
    /// One calibrated scale for the whole tensor; codes saturate at -127..=127.
    Static(f32),
}

/// Pointwise nonlinearities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
}

/// How keys and values are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheFormat {
    /// 32-bit floats: the reference.
    F32,
    /// 16-bit floats.
    F16,
    /// INT8 with a scale per token and head, `absmax / 127`; attention multiplies integers.
    Int8,
    /// INT8 with one calibrated scale per layer for keys and one for values (the paper's option).
    Int8Static {
        /// Key scale of each layer.
        key_scales: Vec<f32>,
        /// Value scale of each layer.
        value_scales: Vec<f32>,
    },
}

impl CacheFormat {
    /// Bytes a token takes in one layer, keys and values with their scales.
    pub fn bytes_per_token(&self, num_kv_heads: usize, head_dim: usize) -> usize {
        let (element, scale) = match self {
            Self::F32 => (4, 0),
            Self::F16 => (2, 0),
            Self::Int8 => (1, 4),
            Self::Int8Static { .. } => (1, 0),
        };
        2 * num_kv_heads * (head_dim * element + scale)
    }
}

/// Size of a paged KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers that each have their own pages.
    pub num_layers: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Pages of [`PAGE_TOKENS`] tokens.
    pub num_pages: usize,
}

/// A ragged step: tokens of one or many sequences that are run together.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Position of each token in its sequence. Positions of one sequence ascend within a step.
    pub positions: &'a [u32],
    /// For each token, the index of its sequence in `page_tables`.
    pub sequences: &'a [u32],
    /// For each sequence its pages in order: position `p` lives in page `table[p / PAGE_TOKENS]`.
    pub page_tables: &'a [Vec<u32>],
}

/// What an attention layer needs besides queries and the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionParams {
    /// Query heads; each group of `num_heads / num_kv_heads` consecutive heads shares a key/value head.
    pub num_heads: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A query at position p sees keys at positions > p - window.
    pub sliding_window: Option<usize>,
    /// ALiBi slopes `[num_heads]`: `slope * key_position` is added to the scaled score (the query-position part
    /// cancels in the softmax; this is the form transformers computes).
    pub alibi_slopes: Option<Vec<f32>>,
}

/// A Gram matrix `sum over tokens of x x^T` `[K,K]`, row-major on the host; only the lower triangle (row >= column)
/// is accumulated until [`Gram::symmetrize`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gram {
    k: usize,
    values: Vec<f32>,
    num_tokens: usize,
}

impl Gram {
    /// The zero matrix `[k,k]`.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            values: vec![0.0; k * k],
            num_tokens: 0,
        }
    }

    /// Side length.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Tokens accumulated.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Values `[K,K]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Values to change in place (smoothing rescales rows and columns).
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Values and the token count, for the device that accumulates.
    pub fn accumulate_parts(&mut self, num_tokens: usize) -> &mut [f32] {
        self.num_tokens += num_tokens;
        &mut self.values
    }

    /// Copies the lower triangle onto the upper one.
    pub fn symmetrize(&mut self) {
        for row in 1..self.k {
            for column in 0..row {
                self.values[column * self.k + row] = self.values[row * self.k + column];
            }
        }
    }
}

/// The left operand of a product: float for float weights, INT8 for integer weights.
#[derive(Debug)]
pub enum Operand<'a, D: Device> {
    /// f32 activations.
    Float(&'a D::Matrix),
    /// INT8 activations with their scales.
    Int8(&'a D::Quantized),
}

/// Slices of a layer begin at a multiple of so many rows.
pub const SLICE_ROWS: usize = 64;

/// A device that can run a model.
///
/// Buffers are opaque; rows are tokens. Outputs are resized to the rows they receive and keep their allocation,
/// so a loop of steps of at most `capacity` rows allocates nothing.
///
/// **Order of float operations** (the contract that makes all devices and batch sizes agree bit for bit):
/// - a float product accumulates over k = 0, 1, 2, ... with fused multiply-adds from 0, then adds the bias;
/// - a sum over a row (norms, softmax) runs in 16 lanes, lane j taking elements j, j+16, ..., then adds the lanes
///   pairwise: (0+8, 1+9, ...), (0+4, ...), (0+2, ...), (0+1);
/// - over a float cache, scores accumulate over head_dim like a product and are multiplied by `scale`; attention outputs
///   accumulate over key positions in order;
/// - over an INT8 cache both products are integer. A query head becomes INT8 as an activation row does
///   (`tq = absmax / 127`), and a score is `((acc as f32 * tq) * key_scale) * scale`, nothing fused. The softmax
///   numerators times the value scales become weights 0..=127 for each page of [`PAGE_TOKENS`] positions, counted from
///   position 0 (`weight_scale = max / 127`, times its inverse, ties to even; an inverse that is not finite makes all of
///   them 0), and an output is `fma(acc as f32, weight_scale, output)` from 0, one for each page in order of positions;
/// - ALiBi adds `slope * key_position` to the scaled score, and attention outputs are multiplied by `1 / sum` of the
///   numerators (before they became weights) at the end;
/// - exp, tanh, erf are the polynomials of `naive`, the same operations on every path;
/// - the integer epilogue is `(acc as f32 * ta) * s1 + bias` without fusing.
///
/// Shape mistakes are programming errors of the engine and panic with both shapes; sizes that come from files are
/// checked before they reach a device and give a [`DeviceError`] from the constructors.
pub trait Device: Sized + Send + Sync + 'static {
    /// f32 `[rows, columns]`.
    type Matrix: Send + Sync;
    /// INT8 codes `[rows, columns]` and scales `[rows]`.
    type Quantized: Send + Sync;
    /// Weights packed for this device.
    type Linear: Send + Sync;
    /// An embedding table `[entries, columns]`.
    type Table: Send + Sync;
    /// Paged keys and values of all layers.
    type Cache: Send + Sync;

    /// An empty matrix with room for `capacity` rows.
    fn matrix(&self, capacity: usize, columns: usize) -> Self::Matrix;
    /// Empty INT8 activations with room for `capacity` rows.
    fn quantized(&self, capacity: usize, columns: usize) -> Self::Quantized;
    /// Packs a layer. The weights are consumed so that both copies need not live at once.
    ///
    /// # Errors
    /// A shape this device cannot hold.
    fn pack(&self, weights: LinearWeights) -> Result<Self::Linear, DeviceError> {
        self.pack_slices((weights.n(), weights.k()), std::iter::once(Ok(weights)))
    }
    /// Packs a layer `[n,k]` that comes in slices of its rows, one after the other and in one scheme, so that it need not
    /// be in memory a second time. All slices but the last have a multiple of [`SLICE_ROWS`] rows.
    ///
    /// # Errors
    /// As [`Self::pack`]; the first error of `slices`.
    ///
    /// # Panics
    /// When the slices are no whole layer of that shape.
    fn pack_slices<E: From<DeviceError>>(
        &self,
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, E>>,
    ) -> Result<Self::Linear, E>;
    /// Takes an embedding table `[entries, columns]`.
    ///
    /// # Errors
    /// `values` is not `entries * columns` long.
    fn table(&self, values: FloatValues, columns: usize) -> Result<Self::Table, DeviceError>;
    /// A zeroed cache.
    ///
    /// # Errors
    /// Sizes that overflow, or a static format whose scales do not match the layers.
    fn cache(&self, shape: CacheShape, format: &CacheFormat) -> Result<Self::Cache, DeviceError>;

    /// Rows of a matrix.
    fn rows(&self, x: &Self::Matrix) -> usize;
    /// Columns of a matrix.
    fn columns(&self, x: &Self::Matrix) -> usize;
    /// Output features of a packed layer.
    fn linear_n(&self, linear: &Self::Linear) -> usize;
    /// Bytes a packed layer occupies.
    fn linear_bytes(&self, linear: &Self::Linear) -> usize;
    /// Bytes a cache occupies.
    fn cache_bytes(&self, cache: &Self::Cache) -> usize;
    /// Replaces the contents by `values` `[rows, columns]` from the host.
    fn upload(&self, x: &mut Self::Matrix, values: &[f32]);
    /// Copies rows to the host: `out` is [rows.len(), columns].
    fn download(&self, x: &Self::Matrix, rows: Range<usize>, out: &mut [f32]);

    /// `x[m] = table[ids[m]]`. Ids are checked by the engine.
    fn embed(&self, x: &mut Self::Matrix, table: &Self::Table, ids: &[u32]);
    /// `out = x / sqrt(mean(x^2) + eps) * weight`; `weight` is a matrix of one row.
    fn rms_norm(&self, out: &mut Self::Matrix, x: &Self::Matrix, weight: &Self::Matrix, eps: f32);
    /// RMS norm in place of every head inside `columns`; `weight` `[1, head_dim]`.
    fn rms_norm_heads(&self, x: &mut Self::Matrix, columns: Columns, weight: &Self::Matrix, eps: f32);
    /// `out = (x - mean) / sqrt(var + eps) * weight + bias`; weight and bias are matrices of one row.
    fn layer_norm(
        &self,
        out: &mut Self::Matrix,
        x: &Self::Matrix,
        weight: &Self::Matrix,
        bias: &Self::Matrix,
        eps: f32,
    );
    /// `a8 = clamp(round_ties_even(x / ta), -127, 127)` (computed as `x * (1 / ta)`), 0 where ta = 0.
    fn quantize(&self, out: &mut Self::Quantized, x: &Self::Matrix, scale: ActivationScale);
    /// [`Self::rms_norm`], quantized, with the same bits. `h` may be used on the way, and holds nothing that counts
    /// afterwards.
    fn rms_norm_quantize(
        &self,
        out: &mut Self::Quantized,
        h: &mut Self::Matrix,
        x: &Self::Matrix,
        weight: &Self::Matrix,
        eps: f32,
        scale: ActivationScale,
    ) {
        self.rms_norm(h, x, weight, eps);
        self.quantize(out, h, scale);
    }
    /// [`Self::layer_norm`] with (weight, bias), quantized; `h` as in [`Self::rms_norm_quantize`].
    fn layer_norm_quantize(
        &self,
        out: &mut Self::Quantized,
        h: &mut Self::Matrix,
        x: &Self::Matrix,
        (weight, bias): (&Self::Matrix, &Self::Matrix),
        eps: f32,
        scale: ActivationScale,
    ) {
        self.layer_norm(h, x, weight, bias, eps);
        self.quantize(out, h, scale);
    }
    /// Says which weights the product after the next one takes, so that a device may fetch them ahead; changes no result.
    fn will_read(&self, _next: &Self::Linear) {}
    /// `out[M,N] = a[M,K] * weights[N,K]^T` with the epilogue of the weights' scheme. The operand's kind must fit:
    /// float weights take floats, integer weights take INT8.
    fn gemm(&self, out: &mut Self::Matrix, a: Operand<'_, Self>, weights: &Self::Linear);
    /// Rotates halves of every head inside `columns`: with c = cos`[m,i]`, s = sin`[m,i]`, i < rotary_dim / 2,
    /// `(x[i], x[i + rotary_dim/2]) = (x[i] c - x[i + rotary_dim/2] s, x[i + rotary_dim/2] c + x[i] s)`; each product rounded, then the
    /// sum. `angles` `[M, rotary_dim]` holds cos in its first half of columns and sin in its second.
    fn rope(&self, x: &mut Self::Matrix, columns: Columns, head_dim: usize, angles: &Self::Matrix);
    /// Writes the keys and values of a step into `layer` of the cache.
    fn cache_write(
        &self,
        cache: &mut Self::Cache,
        layer: usize,
        x: &Self::Matrix,
        keys: Columns,
        values: Columns,
        step: &Step<'_>,
    );
    #[allow(clippy::too_many_arguments, reason = "each is a buffer or a place of its own")]
    /// Causal attention of `x[:, queries]` over the cache: `out` [M, num_heads * head_dim].
    fn attention(
        &self,
        out: &mut Self::Matrix,
        x: &Self::Matrix,
        queries: Columns,
        cache: &Self::Cache,
        layer: usize,
        params: &AttentionParams,
        step: &Step<'_>,
    );
    /// `out[M, C] = f(x[M, 0..C]) * x[M, C..2C]` (gate first).
    fn gated(&self, out: &mut Self::Matrix, x: &Self::Matrix, f: Activation);
    /// `out[M, N/2] = f(gate) * up` of the product whose columns are [gate | up], `wide` may be used on
    /// the way, and holds nothing that counts afterwards. The same bits as [`Self::gemm`] and [`Self::gated`].
    fn gemm_gated(
        &self,
        out: &mut Self::Matrix,
        wide: &mut Self::Matrix,
        a: Operand<'_, Self>,
        weights: &Self::Linear,
        f: Activation,
    ) {
        self.gemm(wide, a, weights);
        self.gated(out, wide, f);
    }
    /// `x += a * weights^T`; `y` may be used on the way, and holds nothing that counts afterwards. The same bits as
    /// [`Self::gemm`] and [`Self::add`].
    fn gemm_add(
        &self,
        x: &mut Self::Matrix,
        y: &mut Self::Matrix,
        a: Operand<'_, Self>,
        weights: &Self::Linear,
    ) {
        self.gemm(y, a, weights);
        self.add(x, y);
    }
    /// `x = f(x)`.
    fn activate(&self, x: &mut Self::Matrix, f: Activation);
    /// `x += y`.
    fn add(&self, x: &mut Self::Matrix, y: &Self::Matrix);
    /// `out[i] = x[rows[i]]`.
    fn gather(&self, out: &mut Self::Matrix, x: &Self::Matrix, rows: &[u32]);
    /// `x = x - log(sum(exp(x)))` per row.
    fn log_softmax(&self, x: &mut Self::Matrix);

    /// `gram += x^T x` (lower triangle), tokens in order.
    fn gram_accumulate(&self, gram: &mut Gram, x: &Self::Matrix);
    /// `out[r] = errors[r] * gram * errors[r]^T` for rows `[R,K]` of `errors`, reading only the gram's lower triangle.
    fn quadratic_rows(&self, gram: &Gram, errors: &[f32], out: &mut [f64]);
    /// `maxima[j] = max(maxima[j], max over rows of |x[:, columns.start + j]|)`.
    fn abs_max(&self, x: &Self::Matrix, columns: Columns, maxima: &mut [f32]);
    /// Splits `data` into chunks of `chunk` elements and runs `f(chunk_idx, chunk)` on the device's host threads.
    fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync);
    /// Host threads in use.
    fn num_threads(&self) -> usize;
}
