//! The list of operations a model is written in, over buffers only the device can look into.

use std::ops::Range;

use dualgrain_format::{FloatValues, LinearWeights};

use crate::sampling::{Sample, SampleRow, SamplerShape, SamplingParams, TokenMask};
use crate::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, DeviceError, ExpertInput,
    RoutingRule, RoutingShape, StepLayout, StepLimits,
};

/// A contiguous range of a matrix's columns, e.g. the queries inside a joined [q|k|v] projection.
pub type Columns = Range<usize>;

/// What an operation gives: nothing, or why the device failed at it.
pub type Done = Result<(), DeviceError>;

/// What becomes of a product's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outputs {
    /// They stay f32.
    Whole,
    /// They are gated or added to something, and rounded to bfloat16 before ([`naive::to_bf16`](crate::naive::to_bf16)) where the weights
    /// have 4 bits. There are many of them and each is read once: a card writes and reads half the bytes.
    Rounded,
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
/// Buffers are opaque and have a fixed capacity; rows are tokens. Outputs are resized to the rows they receive and keep
/// their allocation, so a loop of steps of at most `capacity` rows allocates nothing. What changes from step to step lies
/// in buffers too ([`Self::Indices`], [`Self::Step`], [`Self::SampleRows`], [`Self::Sampler`]): a device can replay a recorded step once
/// they are filled.
///
/// **Order of float operations** (the contract that makes all devices and batch sizes agree bit for bit):
/// - a float product accumulates over k = 0, 1, 2, ... with fused multiply-adds from 0, then adds the bias;
/// - a sum over a row (norms, softmax) runs in 16 lanes, lane j taking elements j, j+16, ..., then adds the lanes
///   pairwise: (0+8, 1+9, ...), (0+4, ...), (0+2, ...), (0+1);
/// - attention counts scores in powers of two: `scale` and ALiBi slopes are multiplied by `log2 e` (rounded), and ALiBi
///   adds `slope * key_position` to the scaled score, nothing fused. Where scores have a soft cap, `scale / cap` is in the place of
///   `scale * log2 e`, and `tanh(score) * (cap * log2 e)` in that of the score, before ALiBi. Over a float cache a score accumulates over head_dim like
///   a product and is multiplied by `scale`. Over an INT8 cache both products are integer: a query head becomes INT8 as an
///   activation row does (`tq = absmax / 127`), and a score is `((acc as f32 * tq) * key_scale) * scale`;
/// - a softmax goes by pages, spans and the whole; what a query does not see counts for nothing in all three:
///   1. A **page** is [`crate::PAGE_TOKENS`] positions, counted from position 0. Its reference is `e = ceil(max of its scores)`,
///      where the maximum is at least the least finite float and NaN counts for nothing; its numerators are `n = 2^(score - e)`, and
///      `page_sum` is their sum in 16 lanes by position. Over a float cache `page_out` is one chain of fused multiply-adds of
///      numerators and values over positions from 0, and `page_scale` is 1. Over an INT8 cache the weights are `n * value_scale` as
///      codes 0..=127 with one scale for the page: `page_scale = max / 127`, where `max` is the largest of the page's weights, at least 0,
///      and NaN counts for nothing; a code is the weight times the inverse of `page_scale`, ties to even. Where that inverse is
///      not finite, `page_scale` and all codes are 0. `page_out` is the integer sum of products of the weights' codes and the
///      values' codes, as a float;
///   2. A **span** is [`SPAN_TOKENS`](crate::naive::SPAN_TOKENS) positions, counted from position 0. It begins with `E` = the least finite
///      float, `sum` = 0 and `out` = 0, and its pages join it in order: `E' = max(E, e)`,
///      `sum = fma(page_sum, 2^(e - E'), sum * 2^(E - E'))`, `out = fma(page_out, page_scale * 2^(e - E'), out * 2^(E - E'))`;
///   3. The **whole** begins as a span does, and spans join it in order by the same step, with the scale 1. Where heads have
///      sinks, one more joins it last: of the single score `sink * log2 e` (rounded), so that `e` is its ceiling, `page_sum` is
///      `2^(score - e)`, and `page_out` is 0. The result is `out * (1 / sum) + 0`.
///
///   So a span needs nothing of another one: thread blocks may compute spans apart, each leaves `E`, `sum` and `out`, and
///   whoever joins these in order gets the same bits. Products with powers of two round nothing, unless they leave
///   the normal floats. A page or span of which nothing is seen may join or be left out: it changes no bit of the
///   result (the last `+ 0` makes zeros positive). A score of NaN or positive infinity makes the result NaN;
/// - no result is flushed to zero for being subnormal; `2^t` is that of `naive`, exact for whole numbers and 0 below -64;
/// - exp, `2^t`, tanh, erf are the polynomials of `naive`, the same operations on every path;
/// - the integer epilogue is `(acc as f32 * ta) * s1 + bias` without fusing.
///
/// # Errors
/// Making a buffer fails where the device has no room for it; its error names the buffer, the device and the sizes. Every
/// operation may fail; its error names the operation, the device and the sizes. An operation whose output has no room for its rows is refused and changes nothing ([`crate::Capacity`]). A device whose operation has failed can be asked for the next one; the outputs of the failed one
/// are undefined.
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
    /// Token ids, positions or row numbers.
    type Indices: Send + Sync;
    /// Positions, sequences and page tables of a step.
    type Step: Send + Sync;
    /// Linears of a mixture, one for each expert.
    type Experts: Send + Sync;
    /// Which tokens go to which expert.
    type Routing: Send + Sync;
    /// Sampling parameters and token counts of every sequence, and the last samples.
    type Sampler: Send + Sync;
    /// Sequence and position of each row of logits that is sampled.
    type SampleRows: Send + Sync;

    /// What a message calls this device.
    fn name(&self) -> String;

    /// An empty matrix with room for `capacity` rows.
    fn matrix(&self, capacity: usize, columns: usize) -> Result<Self::Matrix, DeviceError>;
    /// Empty INT8 activations with room for `capacity` rows.
    fn quantized(&self, capacity: usize, columns: usize) -> Result<Self::Quantized, DeviceError>;
    /// Room for `capacity` indices.
    fn indices(&self, capacity: usize) -> Result<Self::Indices, DeviceError>;
    /// Room for `capacity` rows to sample.
    fn sample_rows(&self, capacity: usize) -> Result<Self::SampleRows, DeviceError>;
    /// Room for steps within `limits`.
    fn step(&self, limits: StepLimits) -> Result<Self::Step, DeviceError>;
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
    fn upload(&self, x: &mut Self::Matrix, values: &[f32]) -> Done;
    /// Copies rows to the host: `out` is [rows.len(), columns].
    fn download(&self, x: &Self::Matrix, rows: Range<usize>, out: &mut [f32]) -> Done;
    /// Replaces the contents by `values`.
    fn upload_indices(&self, indices: &mut Self::Indices, values: &[u32]) -> Done;
    /// Replaces the contents by `values`: `values[i]` says which sequence row i of the logits belongs to and at which position
    /// the chosen token will stand. The engine names slots that the sampler has, each at most once.
    fn upload_sample_rows(&self, rows: &mut Self::SampleRows, values: &[SampleRow]) -> Done;
    /// Replaces the step by another one.
    fn upload_step(&self, step: &mut Self::Step, layout: &StepLayout<'_>) -> Done;

    /// Runs the operations of a step that was uploaded: `run` calls them, the same ones in the same order for every step of so many
    /// tokens. It uploads and reads nothing. A device may record what they launch and replay the record for another step of the same
    /// form; it calls `run` every time.
    fn run_step(&self, _step: &Self::Step, run: &mut dyn FnMut() -> Done) -> Done {
        run()
    }
    /// `x[m] = table[ids[m]]`. The engine checks the ids.
    fn embed(&self, x: &mut Self::Matrix, table: &Self::Table, ids: &Self::Indices) -> Done;
    /// `out = x * inv_rms * weight` with `inv_rms = 1 / sqrt(mean(x^2) + eps)`; `weight` is a matrix of one row.
    fn rms_norm(&self, out: &mut Self::Matrix, x: &Self::Matrix, weight: &Self::Matrix, eps: f32) -> Done;
    /// RMS norm in place of every head inside `columns`; `weight` `[1, head_dim]`.
    fn rms_norm_heads(&self, x: &mut Self::Matrix, columns: Columns, weight: &Self::Matrix, eps: f32)
    -> Done;
    /// `out = fma((x - mean) * inv_std, weight, bias)` with `inv_std = 1 / sqrt(var + eps)`, the variance from the centred values; weight
    /// and bias are matrices of one row.
    fn layer_norm(
        &self,
        out: &mut Self::Matrix,
        x: &Self::Matrix,
        weight: &Self::Matrix,
        bias: &Self::Matrix,
        eps: f32,
    ) -> Done;
    /// `a8 = clamp(round_ties_even(x / ta), -127, 127)` (computed as `x * (1 / ta)`), 0 where ta = 0.
    fn quantize(&self, out: &mut Self::Quantized, x: &Self::Matrix, scale: ActivationScale) -> Done;
    /// [`Self::rms_norm`], quantized, with the same bits. A device may compute through `h`; the caller reads nothing
    /// from `h` afterwards.
    fn rms_norm_quantize(
        &self,
        out: &mut Self::Quantized,
        h: &mut Self::Matrix,
        x: &Self::Matrix,
        weight: &Self::Matrix,
        eps: f32,
        scale: ActivationScale,
    ) -> Done {
        self.rms_norm(h, x, weight, eps)?;
        self.quantize(out, h, scale)
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
    ) -> Done {
        self.layer_norm(h, x, weight, bias, eps)?;
        self.quantize(out, h, scale)
    }
    /// Makes ready now what products with `linears` of up to `max_tokens` tokens would make ready in a step, so that no step waits for
    /// it. Tells whether other operations do so when they run first: then a step that nobody waits for is worth its time.
    fn prepare(
        &self,
        _linears: &[(&Self::Linear, Outputs)],
        _max_tokens: usize,
    ) -> Result<bool, DeviceError> {
        Ok(false)
    }
    /// Says which weights the product after the next one takes, so that a device may fetch them ahead; changes no result.
    fn will_read(&self, _next: &Self::Linear) {}
    /// `out[M,N] = a[M,K] * weights[N,K]^T` with the epilogue of the weights' scheme. The operand's kind must fit:
    /// float weights take floats, integer weights take INT8.
    fn gemm(&self, out: &mut Self::Matrix, a: Operand<'_, Self>, weights: &Self::Linear) -> Done;
    /// [`Self::gemm`] with [`Outputs::Rounded`].
    fn gemm_rounded(&self, out: &mut Self::Matrix, a: Operand<'_, Self>, weights: &Self::Linear) -> Done;
    /// `out[M, N/2] = f(gate) * up` of the product whose columns are [gate | up], with the bits of [`Self::gemm_rounded`] and
    /// [`Self::gated`]. A device may compute through `wide`; the caller reads nothing from `wide` afterwards.
    fn gemm_gated(
        &self,
        out: &mut Self::Matrix,
        wide: &mut Self::Matrix,
        a: Operand<'_, Self>,
        weights: &Self::Linear,
        f: Activation,
    ) -> Done {
        self.gemm_rounded(wide, a, weights)?;
        self.gated(out, wide, f)
    }
    /// `x += a * weights^T`, with the bits of [`Self::gemm_rounded`] and [`Self::add`]. A device may compute through `y`; the
    /// caller reads nothing from `y` afterwards.
    fn gemm_add(
        &self,
        x: &mut Self::Matrix,
        y: &mut Self::Matrix,
        a: Operand<'_, Self>,
        weights: &Self::Linear,
    ) -> Done {
        self.gemm_rounded(y, a, weights)?;
        self.add(x, y)
    }
    /// [`Self::gemm_gated`], transformed as by [`Self::hadamard`] where a block is named, quantized, with the same bits. A device may
    /// compute through `f` and `wide`; the caller reads nothing from them afterwards.
    #[allow(clippy::too_many_arguments, reason = "each is a buffer or a rule of its own")]
    fn gemm_gated_quantize(
        &self,
        out: &mut Self::Quantized,
        f: &mut Self::Matrix,
        wide: &mut Self::Matrix,
        a: Operand<'_, Self>,
        weights: &Self::Linear,
        (activation, block): (Activation, Option<usize>),
        scale: ActivationScale,
    ) -> Done {
        self.gemm_gated(f, wide, a, weights, activation)?;
        match block {
            Some(block) => self.hadamard_quantize(out, f, block, scale),
            None => self.quantize(out, f, scale),
        }
    }
    /// [`Self::gemm_add`] to `x`, then [`Self::rms_norm_quantize`] of `x` by `norm` (weight and eps), with the same bits. A device may
    /// compute through `y` and `h`; the caller reads nothing from them afterwards.
    #[allow(clippy::too_many_arguments, reason = "each is a buffer or a rule of its own")]
    fn gemm_add_rms_norm_quantize(
        &self,
        out: &mut Self::Quantized,
        x: &mut Self::Matrix,
        (y, h): (&mut Self::Matrix, &mut Self::Matrix),
        a: Operand<'_, Self>,
        weights: &Self::Linear,
        norm: (&Self::Matrix, f32),
        scale: ActivationScale,
    ) -> Done {
        self.gemm_add(x, y, a, weights)?;
        self.rms_norm_quantize(out, h, x, norm.0, norm.1, scale)
    }
    /// Rotates halves of every head inside `columns`: with c = cos`[m,i]`, s = sin`[m,i]`, i < rotary_dim / 2,
    /// `(x[i], x[i + rotary_dim/2]) = (x[i] c - x[i + rotary_dim/2] s, x[i + rotary_dim/2] c + x[i] s)`; each product rounded, then the
    /// sum. `angles` `[M, rotary_dim]` holds cos in its first half of columns and sin in its second.
    fn rope(&self, x: &mut Self::Matrix, columns: Columns, head_dim: usize, angles: &Self::Matrix) -> Done;
    /// Writes the keys and values of a step into `layer` of the cache. f16 takes the nearest value, the largest finite one beyond it.
    /// INT8 takes codes of `x` by the inverse of a scale, ties to even: the layer's static scale, or `absmax / 127` of a token's head;
    /// where the inverse is not finite, scale and codes are 0.
    fn cache_write(
        &self,
        cache: &mut Self::Cache,
        layer: usize,
        x: &Self::Matrix,
        keys: Columns,
        values: Columns,
        step: &Self::Step,
    ) -> Done;
    /// [`Self::rope`] of queries and keys, which lie side by side, then [`Self::cache_write`], with the same bits. The caller reads
    /// the queries of `x` alone afterwards.
    #[allow(clippy::too_many_arguments, reason = "each is a buffer or a place of its own")]
    fn rope_cache_write(
        &self,
        cache: &mut Self::Cache,
        layer: usize,
        x: &mut Self::Matrix,
        [queries, keys, values]: [Columns; 3],
        head_dim: usize,
        angles: &Self::Matrix,
        step: &Self::Step,
    ) -> Done {
        self.rope(x, queries.start..keys.end, head_dim, angles)?;
        self.cache_write(cache, layer, x, keys, values, step)
    }
    /// [`Self::rope_cache_write`], [`Self::attention`] and [`Self::quantize`], with the same bits; `angles` come with head_dim. A device may
    /// compute through `c`; the caller reads nothing from `c` and `x` afterwards.
    #[allow(clippy::too_many_arguments, reason = "each is a buffer or a place of its own")]
    fn rope_cache_write_attention_quantize(
        &self,
        (out, scale): (&mut Self::Quantized, ActivationScale),
        c: &mut Self::Matrix,
        cache: &mut Self::Cache,
        layer: usize,
        x: &mut Self::Matrix,
        columns: [Columns; 3],
        (head_dim, angles): (usize, &Self::Matrix),
        params: &AttentionParams,
        step: &Self::Step,
    ) -> Done {
        let queries = columns[0].clone();
        self.rope_cache_write(cache, layer, x, columns, head_dim, angles, step)?;
        self.attention(c, x, queries, cache, layer, params, step)?;
        self.quantize(out, c, scale)
    }
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
        step: &Self::Step,
    ) -> Done;
    /// `out[M, C] = f(x[M, 0..C]) * x[M, C..2C]` (gate first), each by [`crate::naive::gate`].
    fn gated(&self, out: &mut Self::Matrix, x: &Self::Matrix, f: Activation) -> Done;
    /// `x = f(x)`.
    fn activate(&self, x: &mut Self::Matrix, f: Activation) -> Done;
    /// `x = tanh(x * (1 / cap)) * cap`.
    fn soft_cap(&self, x: &mut Self::Matrix, cap: f32) -> Done;
    /// Every run of `block` columns of `x` becomes its Hadamard transform, in the order of [`crate::naive::hadamard`]. `block` is a
    /// power of two, at most [`MOST_HADAMARD_BLOCK`](dualgrain_format::MOST_HADAMARD_BLOCK), and divides the columns.
    fn hadamard(&self, x: &mut Self::Matrix, block: usize) -> Done;
    /// [`Self::hadamard`] of `x`, quantized, with the same bits. The caller reads nothing from `x` afterwards.
    fn hadamard_quantize(
        &self,
        out: &mut Self::Quantized,
        x: &mut Self::Matrix,
        block: usize,
        scale: ActivationScale,
    ) -> Done {
        self.hadamard(x, block)?;
        self.quantize(out, x, scale)
    }
    /// `x += y`.
    fn add(&self, x: &mut Self::Matrix, y: &Self::Matrix) -> Done;
    /// `out[i] = x[rows[i]]`.
    fn gather(&self, out: &mut Self::Matrix, x: &Self::Matrix, rows: &Self::Indices) -> Done;
    /// `x = x - log(sum(exp(x)))` per row.
    fn log_softmax(&self, x: &mut Self::Matrix) -> Done;

    /// Linears of one shape, one for each expert of a mixture; all take floats, or all INT8.
    ///
    /// # Errors
    /// The device has no room for what it keeps beside them.
    fn experts(&self, linears: Vec<Self::Linear>) -> Result<Self::Experts, DeviceError>;
    /// Bytes that the linears of all experts occupy.
    fn experts_bytes(&self, experts: &Self::Experts) -> usize;
    /// Room for the routing of a step.
    fn routing(&self, shape: RoutingShape) -> Result<Self::Routing, DeviceError>;
    /// Chooses experts for each row of `logits`, by the rule of [`crate::naive::route`]; `bias` is a matrix of one row. A column of `logits`
    /// more than there are experts is a gate: its sigmoid weighs the shared expert, which weighs 1 without.
    ///
    /// The rows of a routing are the pairs of a token and an expert, sorted by expert and then by token.
    fn route(
        &self,
        routing: &mut Self::Routing,
        logits: &Self::Matrix,
        bias: Option<&Self::Matrix>,
        rule: &RoutingRule,
    ) -> Done;
    /// [`Self::gemm`] for each row of the routing with the linear of its expert: `out` `[rows, N]`.
    fn gemm_experts(
        &self,
        out: &mut Self::Matrix,
        a: (Operand<'_, Self>, ExpertInput),
        experts: &Self::Experts,
        routing: &mut Self::Routing,
    ) -> Done;
    /// [`Self::gemm_experts`] and [`Self::gated`], with the same bits. A device may compute through `wide`; the caller reads nothing from
    /// `wide` afterwards.
    fn gemm_experts_gated(
        &self,
        out: &mut Self::Matrix,
        wide: &mut Self::Matrix,
        a: (Operand<'_, Self>, ExpertInput),
        experts: &Self::Experts,
        routing: &mut Self::Routing,
        f: Activation,
    ) -> Done {
        self.gemm_experts(wide, a, experts, routing)?;
        self.gated(out, wide, f)
    }
    /// Adds what the experts of each token gave, `y` `[rows, C]`, and a shared one, `[M, C]`, to `x`: by [`crate::naive::combine`].
    fn combine(
        &self,
        x: &mut Self::Matrix,
        y: &Self::Matrix,
        shared: Option<&Self::Matrix>,
        routing: &Self::Routing,
    ) -> Done;
    /// What one expert reads, in order of the routing's rows.
    fn gather_expert(
        &self,
        out: &mut Self::Matrix,
        x: (&Self::Matrix, ExpertInput),
        routing: &Self::Routing,
        expert: usize,
    ) -> Done;

    /// Room for the sampling state of `shape.sequences` sequences.
    fn sampler(&self, shape: SamplerShape) -> Result<Self::Sampler, DeviceError>;
    /// Begins a sequence in `slot`: how its tokens are chosen, and which tokens it has already. `generated` are those that
    /// were sampled, for the penalties that count only them.
    fn begin_sampling(
        &self,
        sampler: &mut Self::Sampler,
        slot: usize,
        params: &SamplingParams,
        prompt: &[u32],
        generated: &[u32],
    ) -> Done;
    /// Says which tokens the sequence in `slot` may take, from the next [`Self::sample`] until another call or until the slot is begun
    /// again; `None`, as at the beginning, allows all. The mask is one of the sampler's vocabulary.
    fn mask_sampling(&self, sampler: &mut Self::Sampler, slot: usize, mask: Option<&TokenMask>) -> Done;
    /// Chooses a token from each row of `logits`, by the rule of [`crate::naive::sample_masked`], and counts it for its sequence. A mask
    /// that leaves no token is an error of its row; log-probabilities are those of the logits as they are, without the mask.
    /// Row i of `rows` belongs to row i of `logits`.
    fn sample(&self, sampler: &mut Self::Sampler, logits: &Self::Matrix, rows: &Self::SampleRows) -> Done;
    /// The samples of the oldest [`Self::sample`] that was not read, in the order of its rows. A sampler keeps those of the last two.
    fn read_samples(&self, sampler: &mut Self::Sampler) -> Result<Vec<Sample>, DeviceError>;
    /// Forgets the samples that were not read.
    fn forget_samples(&self, sampler: &mut Self::Sampler);
    /// `ids[i]` = the token that was chosen last for the sequence of `rows[i]`; 0 where none could be chosen.
    fn last_tokens(&self, ids: &mut Self::Indices, sampler: &Self::Sampler, rows: &Self::SampleRows) -> Done;
    /// Whether operations return before they are done: then the engine begins the next step by [`Self::last_tokens`] before it reads
    /// what this one chose.
    fn works_ahead(&self) -> bool {
        false
    }
}
