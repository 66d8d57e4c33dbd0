//! Sizes of the kernel that copies pages in bulk.

use dualgrain_device::CacheFormat;

use super::paged_cache::is_int8;
use crate::driver::GpuInfo;

/// Fewer stages hide too little.
const LEAST_STAGES: usize = 4;
/// The same with two teams.
const LEAST_STAGES_OF_TEAMS: usize = 8;
/// More hide no more.
const MOST_STAGES: usize = 24;
/// Pages of an item at most.
const MOST_PAGES: usize = 32;
/// Warps of a team, one for each page of a span.
const WARPS: usize = 8;

/// What the kernel is compiled to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RingTask {
    /// Tokens may go whole, one span after the other.
    pub whole: bool,
    /// It rotates queries and keys and writes keys and values, in steps whose sequences have one token each.
    pub joined: bool,
    /// Outputs become codes.
    pub codes: bool,
}

/// What a thread block of the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ring {
    /// Pages that its shared memory holds.
    pub stages: usize,
    /// Teams of eight warps that take spans in turn.
    pub teams: usize,
}

impl Ring {
    /// What a card's thread block has room for; none where another kernel takes the single tokens.
    pub(super) fn new(info: &GpuInfo, format: &CacheFormat, head_dim: usize, group: usize) -> Option<Self> {
        if info.capability < (9, 0) || !is_int8(format) {
            return None;
        }
        let fits = |ring: &Self| ring.shared_bytes(head_dim, group) <= info.shared_bytes;
        let largest = |teams, least: usize| {
            let mut rings = (least..=MOST_STAGES).rev().map(|stages| Self { stages, teams });
            rings.find(fits)
        };
        largest(2, LEAST_STAGES_OF_TEAMS).or_else(|| largest(1, LEAST_STAGES))
    }

    /// Threads of a block: a warp more brings the pages; beside two teams that make codes there are four, since that many warps hand out
    /// registers.
    pub fn threads(self, task: RingTask) -> usize {
        let others = if task.codes && self.teams > 1 { 4 } else { 1 };
        32 * (self.teams * WARPS + others)
    }

    /// Bytes of shared memory: at least the size of `Shared` in cu/attention/ring/page_ring.cuh, which checks it.
    pub(super) fn shared_bytes(self, head_dim: usize, group: usize) -> usize {
        let Self { stages, teams } = self;
        let (row, heads) = (head_dim.next_multiple_of(16), group.min(8));
        let (lane_heads, padding) = if heads > 4 { (8, 4) } else { (4, 8) };
        let items = stages + 2 * teams + 1;
        let stage = 2 * 64 * row + 2 * 4 * 64;
        let outputs = 4 * WARPS * heads * (row + padding);
        let operands = lane_heads * (80 * WARPS + 64 * (row.div_ceil(64) | 1));
        let newest = 2 * row + 16;
        let complete = 4 + 12 * WARPS;
        let team = outputs
            + operands
            + 4 * 3 * WARPS * lane_heads
            + 4 * 8
            + 8 * WARPS
            + (newest + complete).next_multiple_of(16);
        let barriers = 8 * (items + 2 * stages + MOST_PAGES + WARPS);
        (stages * stage + teams * team + 48 * items + barriers + 4 * stages).next_multiple_of(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hopper_holds_more_than_a_span() {
        let info = GpuInfo::h200();
        let ring = |head_dim, group| {
            let ring = Ring::new(&info, &CacheFormat::Int8, head_dim, group);
            ring.map(|ring| (ring.stages, ring.teams))
        };
        assert_eq!(ring(128, 4), Some((11, 2)));
        assert_eq!(ring(128, 8), Some((8, 2)));
        assert_eq!(ring(64, 1), Some((24, 2)));
        assert_eq!(ring(256, 8), Some((4, 1)));
        assert_eq!(ring(512, 8), None);
        assert_eq!(Ring::new(&info, &CacheFormat::F16, 128, 4), None);
    }
}
