//! Keys and values of a step into the cache.

use std::sync::Arc;

use dualgrain_device::{CacheShape, Columns};

use super::paged_cache::{PagedCache, is_int8};
use super::sources::{AttentionKernel, ScoreRule, attention_source};
use super::step_tokens::StepTokens;
use crate::compiler::Jit;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Warps of a thread block, as in cu/attention/cache_write.cu.
const WARPS: usize = 4;
/// Steps of so many tokens give a warp more to do.
const MANY_TOKENS: usize = 512;
/// Heads of a token's keys that a warp takes then, where heads are not longer than `LONGEST_OF_MANY` and their number is a multiple.
const KEY_HEADS: usize = 4;
const LONGEST_OF_MANY: usize = 128;
/// Tokens whose values of a head a warp takes then, in an INT8 cache.
const VALUE_TOKENS: usize = 16;
/// Heads of multiples of so many elements are rotated by the kernel: a lane holds both elements of a pair.
const ROTATED_HEAD: usize = 64;

/// Arguments of the kernel, as `CacheWriteArgs` in cu/attention/cache_write.cu.
#[repr(C)]
struct CacheWriteArgs {
    keys_x: u64,
    values_x: u64,
    keys: u64,
    values: u64,
    key_scales: u64,
    value_scales: u64,
    step: u64,
    key_scale: f32,
    value_scale: f32,
    x_row: i32,
    kv_heads: i32,
    queries_x: u64,
    angles: u64,
    heads: i32,
    spans_only: i32,
    key_heads: i32,
    value_tokens: i32,
}

/// Queries that [`CacheWrite::launch_rotated`] rotates in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotatedQueries {
    /// Those of all tokens.
    All,
    /// Those of tokens that are attended in spans: [`Attention::launch_rotating`](super::Attention::launch_rotating) rotates the others.
    OfSpans,
}

/// Queries that are rotated while keys and values are written, by angles `[tokens, head_dim]` f32.
struct Rotated<'a> {
    queries: Columns,
    of: RotatedQueries,
    angles: &'a Buffer,
}

/// The kernel that writes keys and values, made ready.
pub struct CacheWrite {
    gpu: Gpu,
    kernel: Arc<Kernel>,
    /// For heads that the kernel can rotate.
    rotating: Option<Arc<Kernel>>,
}

impl CacheWrite {
    /// Compiles it for a card and caches like `cache`.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, cache: &PagedCache) -> Result<Self, CudaError> {
        let head_dim = cache.shape().head_dim;
        let kernel = |kernel| {
            jit.kernel(&attention_source(
                kernel,
                cache.format(),
                head_dim,
                1,
                ScoreRule::default(),
            ))
        };
        let rotates = head_dim.is_multiple_of(ROTATED_HEAD);
        Ok(Self {
            gpu: gpu.clone(),
            kernel: kernel(AttentionKernel::Write)?,
            rotating: rotates
                .then(|| kernel(AttentionKernel::RotateWrite))
                .transpose()?,
        })
    }

    /// Whether [`Self::launch_rotated`] can rotate heads of which `rotary_dim` elements are rotated.
    pub fn rotates(&self, cache: &PagedCache, rotary_dim: usize) -> bool {
        self.rotating.is_some() && rotary_dim == cache.shape().head_dim
    }

    /// Puts on the stream: the keys and values of the step's tokens, columns of `x` `[tokens, x_columns]` f32, go into `layer`
    /// of the cache.
    ///
    /// # Errors
    /// A matrix that does not have the step's rows, or a launch the driver refuses.
    ///
    /// # Panics
    /// When there is no such layer, or the columns are not those of the cache's heads.
    pub fn launch(
        &self,
        (x, x_columns): (&Buffer, usize),
        (keys, values): (Columns, Columns),
        cache: &mut PagedCache,
        layer: usize,
        step: &StepTokens,
    ) -> Result<(), CudaError> {
        self.launch_all((x, x_columns), (keys, values), None, (cache, layer), step)
    }

    /// As [`Self::launch`], with keys and queries rotated by `angles` `[tokens, head_dim]`: the queries in place, as many as `of` says, the
    /// keys on their way into the cache. The angles are read, as the step is, before launches in front of this one are done: copies write them, or a
    /// kernel that lets none behind it begin.
    ///
    /// # Errors
    /// As [`Self::launch`].
    ///
    /// # Panics
    /// As [`Self::launch`]; where [`Self::rotates`] says no.
    pub fn launch_rotated(
        &self,
        (x, x_columns): (&Buffer, usize),
        ([queries, keys, values], of): ([Columns; 3], RotatedQueries),
        angles: &Buffer,
        (cache, layer): (&mut PagedCache, usize),
        step: &StepTokens,
    ) -> Result<(), CudaError> {
        let rotated = Some(Rotated { queries, of, angles });
        self.launch_all((x, x_columns), (keys, values), rotated, (cache, layer), step)
    }

    fn launch_all(
        &self,
        (x, x_columns): (&Buffer, usize),
        (keys, values): (Columns, Columns),
        rotated: Option<Rotated<'_>>,
        (cache, layer): (&mut PagedCache, usize),
        step: &StepTokens,
    ) -> Result<(), CudaError> {
        let (shape, tokens) = (cache.shape(), step.num_tokens());
        at_least("keys and values", 4 * tokens * x_columns, x)?;
        check_columns((&keys, &values), shape, x_columns);
        if tokens == 0 {
            return Ok(());
        }
        let (mut heads, mut spans_only) = (0, false);
        if let Some(Rotated { queries, of, angles }) = &rotated {
            at_least("angles", 4 * tokens * shape.head_dim, angles)?;
            assert!(queries.end <= x_columns, "columns {queries:?} of {x_columns}");
            (heads, spans_only) = (queries.len() / shape.head_dim, *of == RotatedQueries::OfSpans);
        }
        let rotated_tokens = if spans_only { step.span_tokens() } else { tokens };
        let (key_heads, value_tokens) = shares_of_warp(cache, tokens);
        let kernel = self.kernel_for(rotated.as_ref(), shape.head_dim);
        let place = cache.layer(layer);
        let mut args = CacheWriteArgs {
            keys_x: x.address() + 4 * keys.start as u64,
            values_x: x.address() + 4 * values.start as u64,
            keys: place.keys,
            values: place.values,
            key_scales: place.key_scales,
            value_scales: place.value_scales,
            step: step.address(),
            key_scale: place.key_scale,
            value_scale: place.value_scale,
            x_row: x_columns as i32,
            kv_heads: shape.num_kv_heads as i32,
            queries_x: rotated
                .as_ref()
                .map_or(0, |rotated| x.address() + 4 * rotated.queries.start as u64),
            angles: rotated.as_ref().map_or(0, |rotated| rotated.angles.address()),
            heads: heads as i32,
            spans_only: i32::from(spans_only),
            key_heads: key_heads as i32,
            value_tokens: value_tokens as i32,
        };
        let keys = tokens * (shape.num_kv_heads / key_heads);
        let values = tokens.div_ceil(value_tokens) * shape.num_kv_heads;
        let warps = keys + values + rotated_tokens * heads;
        let grid = Launch {
            grid: [warps.div_ceil(WARPS) as u32, 1, 1],
            threads: 32 * WARPS as u32,
            shared_bytes: 0,
            cluster: 1,
            programmatic: self.gpu.info().overlaps_launches(),
        };
        // SAFETY: the kernel's one parameter; the matrix is as long as its sizes say (checked), the step's positions lie in
        // pages of their tables (checked as it was filled), and the driver frees none of the buffers before the stream has passed.
        unsafe { launch_with(kernel, &grid, &mut args) }
    }

    fn kernel_for(&self, rotated: Option<&Rotated<'_>>, head_dim: usize) -> &Kernel {
        match (rotated, &self.rotating) {
            (None, _) => &self.kernel,
            (Some(_), Some(kernel)) => kernel,
            (Some(_), None) => panic!("heads of {head_dim} elements are not rotated here"),
        }
    }
}

/// Heads of a token's keys, and tokens of a head's values, that a warp takes in a step of so many tokens.
fn shares_of_warp(cache: &PagedCache, tokens: usize) -> (usize, usize) {
    let shape = cache.shape();
    if tokens < MANY_TOKENS {
        return (1, 1);
    }
    let several = shape.head_dim <= LONGEST_OF_MANY && shape.num_kv_heads.is_multiple_of(KEY_HEADS);
    let key_heads = if several { KEY_HEADS } else { 1 };
    let value_tokens = if is_int8(cache.format()) { VALUE_TOKENS } else { 1 };
    (key_heads, value_tokens)
}

/// Refuses columns that are not those of the cache's heads.
fn check_columns((keys, values): (&Columns, &Columns), shape: CacheShape, x_columns: usize) {
    let width = shape.num_kv_heads * shape.head_dim;
    for columns in [keys, values] {
        assert!(
            columns.len() == width && columns.end <= x_columns,
            "columns {columns:?} of {x_columns} for heads of {width} elements"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<CacheWriteArgs>(), 104);
    }
}
