//! Texts and macros of the kernels.

use dualgrain_device::{AttentionParams, CacheFormat};

use super::paged_cache::is_int8;
use super::ring::{Ring, RingTask};
use crate::compiler::Source;
use crate::cu;

/// Heads at most this long have kernels for tiles of a prompt.
pub(super) const LONGEST_TILED_HEAD: usize = 256;

/// Heads of this length have a kernel for warp groups.
pub(super) const GROUPED_HEAD: usize = 128;
/// Warp groups of a thread block that takes a tile of a prompt, 64 rows each.
pub(super) const PROMPT_GROUPS: usize = 3;
/// Pages that such a thread block has room for.
const PROMPT_STAGES: usize = 5;
/// Its shared memory: pages with their scales and two barriers each; queries, outputs and five numbers of every row; four constants; parts
/// of five words that the warps may be at, and two cuts.
pub(super) const PROMPT_GROUP_BYTES: usize = (PROMPT_STAGES * (2 * 64 * GROUPED_HEAD + 2 * 4 * 64 + 2 * 8)
    + PROMPT_GROUPS * 64 * (GROUPED_HEAD + 4 * GROUPED_HEAD + 5 * 4)
    + 4 * 128
    + (PROMPT_STAGES + 2) * 20
    + 2 * 8)
    .next_multiple_of(1024);

/// A kernel of the cache or of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttentionKernel {
    /// Keys and values into the cache.
    Write,
    /// The same, with queries and keys rotated first.
    RotateWrite,
    /// Single tokens, a span a thread block.
    Spans,
    /// Single tokens over an INT8 cache, by thread blocks that stay and have pages brought to them.
    Ring(Ring, RingTask),
    /// Single tokens, a token a thread block.
    Walk,
    /// Tiles of consecutive tokens over an INT8 cache.
    Prompt {
        /// Warps of a thread block, 16 rows each.
        warps: usize,
    },
    /// The same on Hopper, by warp groups; for heads of 128 elements.
    PromptGroups,
}

impl AttentionKernel {
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Write | Self::RotateWrite => ("cache_write", cu::CACHE_WRITE),
            Self::Spans | Self::Walk => ("attention_spans", cu::ATTENTION_SPANS),
            Self::Ring(..) => ("attention_ring", cu::ATTENTION_RING),
            Self::Prompt { .. } => ("attention_prompt", cu::ATTENTION_PROMPT),
            Self::PromptGroups => ("attention_prompt_sm90", cu::ATTENTION_PROMPT_SM90),
        }
    }
}

/// What happens to scores before the softmax.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScoreRule {
    /// ALiBi is added.
    pub alibi: bool,
    /// They are capped.
    pub soft_cap: bool,
    /// Heads have sinks.
    pub sinks: bool,
}

impl ScoreRule {
    /// That of a layer.
    pub fn of(params: &AttentionParams) -> Self {
        Self {
            alibi: params.alibi_slopes.is_some(),
            soft_cap: params.soft_cap.is_some(),
            sinks: params.sinks.is_some(),
        }
    }

    fn macros(self) -> impl Iterator<Item = (&'static str, i64)> {
        let further = [("SOFT_CAP", self.soft_cap), ("SINKS", self.sinks)];
        let further = further
            .into_iter()
            .filter_map(|(name, is_on)| is_on.then_some((name, 1)));
        std::iter::once(("ALIBI", i64::from(self.alibi))).chain(further)
    }

    /// Scores are products times a factor.
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }
}

/// The text and macros of a kernel for a cache's format and head size, a number of query heads for each key/value head, and
/// with what happens to scores.
pub fn attention_source(
    kernel: AttentionKernel,
    format: &CacheFormat,
    head_dim: usize,
    group: usize,
    rule: ScoreRule,
) -> Source {
    let (name, text) = kernel.text();
    let mut macros = vec![("FORMAT", format_code(format)), ("HEAD_DIM", head_dim as i64)];
    if !matches!(kernel, AttentionKernel::Write | AttentionKernel::RotateWrite) {
        macros.push(("GROUP", group as i64));
        macros.extend(rule.macros());
    }
    match kernel {
        AttentionKernel::Write => {}
        AttentionKernel::PromptGroups => {
            macros.extend([
                ("GROUPS", PROMPT_GROUPS as i64),
                ("STAGES", PROMPT_STAGES as i64),
                ("SHARED_BYTES", PROMPT_GROUP_BYTES as i64),
                ("ROTATES", i64::from(rule.is_plain())),
            ]);
        }
        AttentionKernel::RotateWrite => macros.push(("ROPE", 1)),
        AttentionKernel::Spans | AttentionKernel::Walk => macros.extend([
            ("WALK", i64::from(kernel == AttentionKernel::Walk)),
            (
                "MIN_CTAS",
                if head_dim > 64 && is_int8(format) || head_dim > 256 {
                    2
                } else {
                    3
                },
            ),
        ]),
        AttentionKernel::Ring(ring, task) => macros.extend([
            ("WHOLE", i64::from(task.whole)),
            ("JOINED", i64::from(task.joined)),
            ("CODES", i64::from(task.codes)),
            ("STAGES", ring.stages as i64),
            ("TEAMS", ring.teams as i64),
            ("SHARED_BYTES", ring.shared_bytes(head_dim, group) as i64),
        ]),
        AttentionKernel::Prompt { warps } => macros.extend([
            ("WARPS", warps as i64),
            ("MIN_CTAS", prompt_ctas(warps, head_dim) as i64),
        ]),
    }
    Source {
        name,
        text,
        headers: cu::ATTENTION_HEADERS,
        macros,
    }
}

/// Thread blocks of a prompt's tiles that share a multiprocessor, for as many warps as have registers.
fn prompt_ctas(warps: usize, head_dim: usize) -> usize {
    let resident = match head_dim {
        ..=80 | 113..=128 => 12,
        _ => 8,
    };
    (resident / warps).max(1)
}

fn format_code(format: &CacheFormat) -> i64 {
    match format {
        CacheFormat::F32 => 0,
        CacheFormat::F16 => 1,
        CacheFormat::Int8 => 2,
        CacheFormat::Int8Static { .. } => 3,
    }
}
