//! Room that thread blocks of attention leave their parts in.

use dualgrain_device::StepLimits;

use super::sources::{GROUPED_HEAD, PROMPT_GROUPS};
use super::step_tokens::most_spans;
use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;

/// Thread blocks that pass tiles on at most: as many as a Hopper card has multiprocessors.
pub(super) const MOST_PASSING: usize = 144;
/// Warps of such a block.
const PASSED_WARPS: usize = 4 * PROMPT_GROUPS;
/// What the warps of one leave of a tile: outputs of 16 rows twice, and eight numbers of each lane.
const PASSED_BYTES: usize = PASSED_WARPS * (2 * 16 * 4 * GROUPED_HEAD + 32 * 32);

/// Room for what spans leave to be joined; launches on one stream share it.
pub struct AttentionWorkspace {
    pub(super) limits: StepLimits,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// `[spans][heads][head_dim]` f32, zeros between launches
    pub(super) partial: Buffer,
    /// `[spans][heads][2]` f32
    pub(super) partial_state: Buffer,
    /// `[spans][heads][parts of 32 elements][2]` u32, zeros between launches
    pub(super) ring_state: Buffer,
    /// `[spans][heads][parts of 32 elements]` u32, zeros between launches
    pub(super) arrived: Buffer,
    /// A u32, 0 between launches
    pub(super) drawn: Buffer,
    /// `[sequences][heads][head_dim]` u32, zeros between launches
    pub(super) rows: Buffer,
    /// `[sequences]` u32, zeros between launches
    pub(super) finished: Buffer,
    /// What thread blocks of a prompt pass on (`Passed` in cu/attention/groups/attention_group.cuh), and a flag of each warp, 0 between launches
    pub(super) passed: Buffer,
    pub(super) passed_flags: Buffer,
}

impl AttentionWorkspace {
    /// Room for steps within `limits`, of `heads` query heads of `head_dim`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, limits: StepLimits, heads: usize, head_dim: usize) -> Result<Self, CudaError> {
        let rows = most_spans(limits) * heads;
        let passing = match gpu.info().capability == (9, 0) {
            true => passing_blocks(limits, heads, head_dim).min(gpu.info().num_sms),
            false => 0,
        };
        Ok(Self {
            limits,
            heads,
            head_dim,
            partial: gpu.filled(4 * rows * head_dim, 0)?,
            partial_state: gpu.filled(8 * rows, 0)?,
            ring_state: gpu.filled(8 * rows * head_dim.div_ceil(32), 0)?,
            arrived: gpu.filled(4 * rows * head_dim.div_ceil(32), 0)?,
            drawn: gpu.filled(4, 0)?,
            rows: gpu.filled(4 * limits.sequences * heads * head_dim, 0)?,
            finished: gpu.filled(4 * limits.sequences, 0)?,
            passed: gpu.filled((passing * PASSED_BYTES).max(1), 0)?,
            passed_flags: gpu.filled((4 * passing * PASSED_WARPS).max(1), 0)?,
        })
    }

    /// Bytes of the card's memory that one for such steps and heads takes.
    pub fn bytes_for(limits: StepLimits, heads: usize, head_dim: usize) -> usize {
        let spans = most_spans(limits) * heads * (4 * head_dim + 8 + 12 * head_dim.div_ceil(32));
        let joined = 4 + 4 * limits.sequences * (heads * head_dim + 1);
        spans + joined + passing_blocks(limits, heads, head_dim) * (PASSED_BYTES + 4 * PASSED_WARPS)
    }
}

/// Thread blocks of prompts that stay on the card and pass tiles on, at most: no more than tiles of single tokens and heads.
fn passing_blocks(limits: StepLimits, heads: usize, head_dim: usize) -> usize {
    match head_dim == GROUPED_HEAD {
        true => limits.tokens.saturating_mul(heads).min(MOST_PASSING),
        false => 0,
    }
}
