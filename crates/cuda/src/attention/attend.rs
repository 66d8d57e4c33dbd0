//! Attention over a paged cache.

use std::f32::consts::LOG2_E;
use std::sync::Arc;

use dualgrain_device::naive::usable_scale;
use dualgrain_device::{AttentionParams, Columns};

use super::arguments::AttentionArgs;
use super::paged_cache::{PagedCache, is_int8};
use super::ring::{Ring, RingTask};
use super::sources::{
    AttentionKernel, GROUPED_HEAD, LONGEST_TILED_HEAD, PROMPT_GROUP_BYTES, PROMPT_GROUPS, ScoreRule,
    attention_source,
};
use super::step_tokens::StepTokens;
use super::workspace::{AttentionWorkspace, MOST_PASSING};
use crate::compiler::Jit;
use crate::driver::{Buffer, Gpu, GpuInfo, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Pages of a span.
const SPAN_PAGES: usize = 8;
/// Warps of a thread block that takes a span.
const SPAN_WARPS: usize = 4;
/// Warps of a thread block that takes a tile of a prompt.
const PROMPT_WARPS: usize = 4;
/// Heads of multiples of so many elements are rotated by attention: a lane holds both elements of a pair.
const ROTATED_HEAD: usize = 64;

/// Slopes or sinks of heads for scores that count in powers of two.
fn in_base_two(gpu: &Gpu, of_heads: Option<&[f32]>) -> Result<Option<Buffer>, CudaError> {
    let scaled = |values: &[f32]| values.iter().map(|value| value * LOG2_E).collect::<Vec<_>>();
    of_heads.map(|values| gpu.upload(&scaled(values))).transpose()
}

/// A kernel with the size of its thread blocks.
pub(super) struct Ready {
    kernel: Arc<Kernel>,
    threads: usize,
    shared_bytes: usize,
    /// Thread blocks that the card holds at once.
    pub resident: usize,
}

/// Kernels for steps whose sequences have one token each.
pub(super) struct Joined {
    /// From rotation to codes, where no token goes whole.
    pub codes: Ready,
    /// From rotation to outputs.
    pub floats: Ready,
}

/// Attention of one kind of layer, made ready.
pub struct Attention {
    gpu: Gpu,
    pub(super) params: AttentionParams,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    int8: bool,
    /// `[heads]` f32, times log2 e.
    slopes: Option<Buffer>,
    /// The same of sinks.
    sinks: Option<Buffer>,
    spans: Ready,
    /// Whether `spans` is the kernel that has pages brought to it.
    spans_in_ring: bool,
    pub(super) joined: Option<Joined>,
    runs: Ready,
    /// Tokens of a tile of the kernel for runs; none where it goes token by token.
    tile_tokens: Option<usize>,
    /// Whether queries are read in fours.
    grouped: bool,
    /// Thread blocks that stay and share the tiles of prompts at most.
    prompt_blocks: usize,
}

impl Attention {
    /// Compiles the kernels for a card, caches like `cache` and layers with `params`.
    ///
    /// # Errors
    /// They do not compile or load, or not enough memory.
    ///
    /// # Panics
    /// When the heads of `params` do not fit those of the cache.
    pub fn new(
        jit: &Jit,
        gpu: &Gpu,
        cache: &PagedCache,
        params: &AttentionParams,
    ) -> Result<Self, CudaError> {
        Self::with_prompt_warps(jit, gpu, cache, params, PROMPT_WARPS)
    }

    /// As [`Self::new`], with so many warps of 16 rows for a tile of a prompt, where warp groups do not take it.
    ///
    /// # Errors
    /// As [`Self::new`].
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn with_prompt_warps(
        jit: &Jit,
        gpu: &Gpu,
        cache: &PagedCache,
        params: &AttentionParams,
        warps: usize,
    ) -> Result<Self, CudaError> {
        let (kv_heads, head_dim) = (cache.shape().num_kv_heads, cache.shape().head_dim);
        let group = group_of(params, kv_heads);
        let int8 = is_int8(cache.format());
        let grouped = int8 && runs_in_groups(gpu.info(), head_dim, group);
        let (prompt, tile_rows) = match grouped {
            true => (AttentionKernel::PromptGroups, 64 * PROMPT_GROUPS),
            false => (AttentionKernel::Prompt { warps }, 16 * warps),
        };
        let tiled = grouped || int8 && runs_in_tiles(head_dim, group, warps, gpu.info().shared_bytes);
        let ready = |kernel| {
            let source = attention_source(kernel, cache.format(), head_dim, group, ScoreRule::of(params));
            let (threads, shared_bytes) = block_of(kernel, int8, head_dim, group);
            Ready::new(gpu, jit.kernel(&source)?, threads, shared_bytes)
        };
        let ring = Ring::new(gpu.info(), cache.format(), head_dim, group);
        let in_ring = |ring, whole, joined, codes| {
            let task = RingTask { whole, joined, codes };
            ready(AttentionKernel::Ring(ring, task))
        };
        let joins = is_joined(gpu.info(), head_dim, params);
        let runs = ready(match tiled {
            true => prompt,
            false => AttentionKernel::Walk,
        })?;
        Ok(Self {
            gpu: gpu.clone(),
            params: params.clone(),
            kv_heads,
            head_dim,
            int8,
            slopes: in_base_two(gpu, params.alibi_slopes.as_deref())?,
            sinks: in_base_two(gpu, params.sinks.as_deref())?,
            spans_in_ring: ring.is_some(),
            joined: match ring {
                Some(ring) if joins => Some(Joined {
                    codes: in_ring(ring, false, true, true)?,
                    floats: in_ring(ring, true, true, false)?,
                }),
                _ => None,
            },
            spans: match ring {
                Some(ring) => in_ring(ring, true, false, false)?,
                None => ready(AttentionKernel::Spans)?,
            },
            prompt_blocks: runs.resident.min(MOST_PASSING),
            runs,
            tile_tokens: tiled.then(|| tile_rows / group),
            grouped,
        })
    }

    /// Lets at most so many thread blocks share the tiles of prompts where they stay on the card, instead of as many as it holds.
    /// It changes no result.
    ///
    /// # Panics
    /// When it is none.
    pub fn limit_prompt_blocks(&mut self, most: usize) {
        assert!(most > 0, "no thread blocks for prompts");
        self.prompt_blocks = most.min(self.prompt_blocks);
    }

    /// Puts on the stream: causal attention of the queries, columns of `x` `[tokens, x_columns]` f32, over `layer` of the cache
    /// into `out` `[tokens, num_heads * head_dim]` f32.
    ///
    /// # Errors
    /// Matrices that do not have the step's rows, or a launch the driver refuses.
    ///
    /// # Panics
    /// When there is no such layer, the columns are not those of the heads or begin at no multiple of four, or cache or workspace are
    /// made for other sizes.
    #[allow(clippy::too_many_arguments, reason = "each is a buffer or a place of its own")]
    pub fn launch(
        &self,
        out: &Buffer,
        x: (&Buffer, usize),
        queries: Columns,
        cache: &PagedCache,
        layer: usize,
        step: &StepTokens,
        workspace: &AttentionWorkspace,
    ) -> Result<(), CudaError> {
        self.launch_all(out, (x, queries), None, (cache, layer), (step, workspace))
    }

    /// Whether [`Self::launch_rotating`] takes a step: it has runs, and the kernel for them rotates.
    pub fn rotates_runs(&self, step: &StepTokens) -> bool {
        self.grouped && ScoreRule::of(&self.params).is_plain() && step.run_tokens() > 0
    }

    /// As [`Self::launch`], with queries of runs as they were before their rotation by `angles` `[tokens, head_dim]`; so nobody writes
    /// them and reads them again. Queries of spans are rotated before.
    ///
    /// # Errors
    /// As [`Self::launch`]; angles that are not the step's.
    ///
    /// # Panics
    /// As [`Self::launch`]; where [`Self::rotates_runs`] says no.
    pub fn launch_rotating(
        &self,
        out: &Buffer,
        x: (&Buffer, usize),
        (queries, angles): (Columns, &Buffer),
        cache: (&PagedCache, usize),
        step: (&StepTokens, &AttentionWorkspace),
    ) -> Result<(), CudaError> {
        assert!(self.rotates_runs(step.0), "runs that nothing rotates");
        at_least("angles", 4 * step.0.num_tokens() * self.head_dim, angles)?;
        self.launch_all(out, (x, queries), Some(angles), cache, step)
    }

    fn launch_all(
        &self,
        out: &Buffer,
        ((x, x_columns), queries): ((&Buffer, usize), Columns),
        angles: Option<&Buffer>,
        (cache, layer): (&PagedCache, usize),
        (step, workspace): (&StepTokens, &AttentionWorkspace),
    ) -> Result<(), CudaError> {
        let (tokens, width) = (step.num_tokens(), self.params.num_heads * self.head_dim);
        at_least("queries", 4 * tokens * x_columns, x)?;
        at_least("output of attention", 4 * tokens * width, out)?;
        assert!(
            queries.len() == width && queries.end <= x_columns,
            "columns {queries:?} of {x_columns} for heads of {width} elements"
        );
        assert!(
            !self.grouped || queries.start.is_multiple_of(4) && x_columns.is_multiple_of(4),
            "heads of columns {queries:?} of {x_columns} that do not begin at a multiple of four"
        );
        self.check_fit(cache, step, workspace);
        let query_x = x.address() + 4 * queries.start as u64;
        let args = AttentionArgs {
            out: out.address(),
            angles: angles.map_or(0, Buffer::address),
            ..self.arguments((query_x, x_columns), (cache, layer), step, workspace)
        };
        if step.num_spans() > 0 {
            self.start(&self.spans, self.spans.resident, args)?;
        }
        let run_tokens = step.run_tokens();
        if run_tokens > 0 {
            let blocks = match self.tile_tokens {
                Some(tile) if self.grouped => (step.num_tiles(tile) * self.kv_heads).min(self.prompt_blocks),
                Some(tile) => step.num_tiles(tile) * self.kv_heads,
                None => self.runs.resident,
            };
            self.start(&self.runs, blocks, args)?;
        }
        Ok(())
    }

    pub(super) fn check_fit(&self, cache: &PagedCache, step: &StepTokens, workspace: &AttentionWorkspace) {
        let shape = cache.shape();
        assert!(
            (shape.num_kv_heads, shape.head_dim) == (self.kv_heads, self.head_dim)
                && is_int8(cache.format()) == self.int8,
            "attention of {} heads of {} over a cache of {shape}",
            self.kv_heads,
            self.head_dim
        );
        assert!(
            (workspace.heads, workspace.head_dim) == (self.params.num_heads, self.head_dim)
                && step.limits() == workspace.limits,
            "a workspace for {} heads of {} and {:?}, the step has {:?}",
            workspace.heads,
            workspace.head_dim,
            workspace.limits,
            step.limits()
        );
    }

    pub(super) fn arguments(
        &self,
        (x, x_columns): (u64, usize),
        (cache, layer): (&PagedCache, usize),
        step: &StepTokens,
        workspace: &AttentionWorkspace,
    ) -> AttentionArgs {
        let place = cache.layer(layer);
        // A window that no position reaches beyond is none.
        let window = self
            .params
            .sliding_window
            .and_then(|window| i32::try_from(window).ok());
        AttentionArgs {
            x,
            keys: place.keys,
            values: place.values,
            key_scales: place.key_scales,
            value_scales: place.value_scales,
            slopes: self.slopes.as_ref().map_or(0, Buffer::address),
            step: step.address(),
            partial: workspace.partial.address(),
            partial_state: match self.spans_in_ring {
                true => workspace.ring_state.address(),
                false => workspace.partial_state.address(),
            },
            arrived: workspace.arrived.address(),
            drawn: workspace.drawn.address(),
            passed: workspace.passed.address(),
            passed_flags: workspace.passed_flags.address(),
            scale: self.params.score_factor(),
            key_scale: usable_scale(place.key_scale).0,
            value_scale: usable_scale(place.value_scale).0,
            x_row: x_columns as i32,
            kv_heads: self.kv_heads as i32,
            window: window.unwrap_or(0),
            soft_cap: self.params.soft_cap.map_or(0.0, |cap| cap * LOG2_E),
            sinks: self.sinks.as_ref().map_or(0, Buffer::address),
            ..AttentionArgs::default()
        }
    }

    pub(super) fn start(
        &self,
        ready: &Ready,
        blocks: usize,
        mut args: AttentionArgs,
    ) -> Result<(), CudaError> {
        let grid = Launch {
            grid: [blocks as u32, 1, 1],
            threads: ready.threads as u32,
            shared_bytes: ready.shared_bytes,
            cluster: 1,
            programmatic: self.gpu.info().overlaps_launches(),
        };
        // SAFETY: the kernel's one parameter; matrices are as long as their sizes say (checked), positions lie in pages of their
        // tables and spans in the workspace (by construction of the step), and the driver frees none of the buffers before the
        // stream has passed the launch.
        unsafe { launch_with(&ready.kernel, &grid, &mut args) }
    }
}

impl Ready {
    fn new(gpu: &Gpu, kernel: Arc<Kernel>, threads: usize, shared_bytes: usize) -> Result<Self, CudaError> {
        kernel.allow_shared(shared_bytes)?;
        let blocks = kernel.blocks_per_sm(threads, shared_bytes)?;
        Ok(Self {
            kernel,
            threads,
            shared_bytes,
            resident: blocks.max(1) * gpu.info().num_sms,
        })
    }
}

/// Query heads of a cached one.
fn group_of(params: &AttentionParams, kv_heads: usize) -> usize {
    let heads = params.num_heads;
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "{heads} heads over {kv_heads} cached ones"
    );
    assert!(params.sliding_window != Some(0), "a window of no positions");
    for (what, of_heads) in [("slopes", &params.alibi_slopes), ("sinks", &params.sinks)] {
        assert_eq!(
            of_heads.as_ref().map_or(heads, Vec::len),
            heads,
            "{what} of heads"
        );
    }
    heads / kv_heads
}

/// Whether heads have kernels from rotation to codes, where the ring has room: they are measured on Hopper alone.
fn is_joined(info: &GpuInfo, head_dim: usize, params: &AttentionParams) -> bool {
    info.capability == (9, 0) && head_dim.is_multiple_of(ROTATED_HEAD) && ScoreRule::of(params).is_plain()
}

/// Whether consecutive tokens of a sequence go in tiles of so many warps over an INT8 cache: a tile holds a group's heads and has
/// room in shared memory.
fn runs_in_tiles(head_dim: usize, group: usize, warps: usize, shared_bytes: usize) -> bool {
    let needed_bytes = block_of(AttentionKernel::Prompt { warps }, true, head_dim, group).1;
    head_dim <= LONGEST_TILED_HEAD && group <= 16 * warps && needed_bytes <= shared_bytes
}

/// Whether they go by the warp groups that Hopper has.
fn runs_in_groups(info: &GpuInfo, head_dim: usize, group: usize) -> bool {
    let needed_bytes = block_of(AttentionKernel::PromptGroups, true, head_dim, group).1;
    info.capability == (9, 0)
        && head_dim == GROUPED_HEAD
        && group <= 64 * PROMPT_GROUPS
        && needed_bytes <= info.shared_bytes
}

/// As [`Attention::new`] decides for heads over an INT8 cache.
pub(crate) fn prompt_kernel(info: &GpuInfo, head_dim: usize, group: usize) -> &'static str {
    if runs_in_groups(info, head_dim, group) {
        return "attention_prompt_sm90";
    }
    match runs_in_tiles(head_dim, group, PROMPT_WARPS, info.shared_bytes) {
        true => "attention_prompt",
        false => "attention_spans",
    }
}

/// Threads and bytes of dynamic shared memory of a kernel's thread block: the size of its `Shared`.
fn block_of(kernel: AttentionKernel, int8: bool, head_dim: usize, group: usize) -> (usize, usize) {
    let row = head_dim.next_multiple_of(16);
    match kernel {
        AttentionKernel::Write | AttentionKernel::RotateWrite => (128, 0),
        AttentionKernel::Spans | AttentionKernel::Walk => {
            let heads = group.min(if head_dim > 256 { 4 } else { 8 });
            let outputs = 4 * SPAN_PAGES * heads * (row + 4);
            let states = 4 * (5 * SPAN_PAGES * 8 + 4 * 8 + 4);
            let operands = match int8 {
                true => SPAN_WARPS * 8 * 80 + 8 * 64 * (row.div_ceil(64) | 1),
                false => 4 * (SPAN_WARPS * 64 * heads.next_multiple_of(4) + heads * row),
            };
            (32 * SPAN_WARPS, outputs + states + operands)
        }
        AttentionKernel::Ring(ring, task) => (ring.threads(task), ring.shared_bytes(head_dim, group)),
        AttentionKernel::PromptGroups => (128 * (PROMPT_GROUPS + 1), PROMPT_GROUP_BYTES),
        AttentionKernel::Prompt { warps } => {
            let key_page = 64 * (row.next_multiple_of(32) + 16);
            let stage = key_page + row * 80 + 2 * 4 * 64 + 16;
            let rows = 5 * 4 * 16;
            // Queries of long heads have a place of their own.
            let queries = if head_dim > 128 {
                16 * (row.next_multiple_of(32) + 16)
            } else {
                0
            };
            (32 * warps, 2 * stage + warps * (rows + 64 * row + queries))
        }
    }
}
