//! How many multiply-adds of floats the search of one row takes.

use dualgrain_format::GroupSize;

use crate::methods::dgq::approximate_gram::RANK;
use crate::methods::dgq::candidates::{NUM_CHANNEL_RATIOS, NUM_GROUP_RATIOS, SHORTLIST};

/// Writing and re-reading one candidate's error costs about this many multiply-adds.
const CANDIDATE_COST: u64 = 8;

/// Multiply-adds of the search on one row of a layer, by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowMultiplyAdds {
    /// Phase 1.
    pub groups: u64,
    /// Ranking the candidates of phase 2.
    pub shortlist: u64,
    /// Judging candidates exactly, the energy of the row included.
    pub exact: u64,
}

impl RowMultiplyAdds {
    /// Those of a row of `k` weights; `approximate` ranks before it judges.
    pub fn new(k: usize, group_size: GroupSize, approximate: bool) -> Self {
        let group = group_size.len(k).min(k) as u64;
        let candidates = |count: usize, width: u64| count as u64 * k as u64 * (width / 2 + CANDIDATE_COST);
        let approximate = approximate && group_size.num_groups(k) > 1;
        let judged = match group_size {
            GroupSize::WholeRow => 1,
            GroupSize::Along(_) if approximate => SHORTLIST,
            GroupSize::Along(_) => NUM_CHANNEL_RATIOS,
        };
        let shortlist = candidates(NUM_CHANNEL_RATIOS, group + 2 * RANK as u64);
        let energy = k as u64 * k as u64 / 2;
        Self {
            groups: candidates(NUM_GROUP_RATIOS, group),
            shortlist: if approximate { shortlist } else { 0 },
            exact: candidates(judged, k as u64) + energy,
        }
    }

    /// All steps.
    pub fn total(&self) -> u64 {
        self.groups + self.shortlist + self.exact
    }
}
