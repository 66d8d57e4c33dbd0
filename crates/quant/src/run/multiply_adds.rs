//! How much work each step is, in multiply-adds of the float kind: for the progress bar and the plan.

use dualgrain_engine::{BlockSpec, ModelConfig, Role};
use dualgrain_format::{GroupSize, TensorScheme};

use crate::calibrate::windows::Windows;
use crate::methods::dgq::approximate_gram::RANK;
use crate::methods::dgq::channel_search::{NUM_CHANNEL_RATIOS, SHORTLIST};
use crate::methods::dgq::group_search::NUM_GROUP_RATIOS;
use crate::methods::linear::Search;
use crate::options::QuantOptions;

/// An integer product takes about a fourth of the time of a float product.
const INT8_SPEEDUP: u64 = 4;

/// Writing and re-reading one candidate's error costs about this many multiply-adds.
const CANDIDATE_COST: u64 = 8;

/// Work of the search on one row of a layer, by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowWork {
    /// Phase 1.
    pub groups: u64,
    /// Ranking the candidates of phase 2.
    pub screen: u64,
    /// Judging candidates exactly, the energy of the row included.
    pub exact: u64,
}

impl RowWork {
    /// The work on a row of `k` weights.
    pub fn new(k: usize, group_size: GroupSize, search: Search) -> Self {
        let group = group_size.len(k).min(k) as u64;
        let k64 = k as u64;
        let full = k64 * k64 / 2;
        let candidates = |count: usize, width: u64| count as u64 * k64 * (width / 2 + CANDIDATE_COST);
        let single = group_size.num_groups(k) == 1;
        let groups = if search == Search::Rtn {
            0
        } else {
            candidates(NUM_GROUP_RATIOS, group)
        };
        let screened = search == Search::TwoPhase && !single;
        let judged = match search {
            Search::Rtn => 1,
            _ if group_size == GroupSize::WholeRow => 1,
            _ if screened => SHORTLIST,
            _ => NUM_CHANNEL_RATIOS,
        };
        Self {
            groups,
            screen: if screened {
                candidates(NUM_CHANNEL_RATIOS, group + 2 * RANK as u64)
            } else {
                0
            },
            exact: candidates(judged, k64) + full,
        }
    }

    /// All steps.
    pub fn total(&self) -> u64 {
        self.groups + self.screen + self.exact
    }
}

/// Work of the calibration passes of a block on one window of `tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassWork {
    /// One run of each linear, indexed by [`Role`].
    pub linear: [u64; 4],
    /// Accumulating the Gram matrix of each linear's input.
    pub gram: [u64; 4],
    /// Attention.
    pub attention: u64,
}

impl PassWork {
    /// The work of `spec`.
    pub fn new(spec: &BlockSpec, tokens: usize) -> Self {
        let tokens = tokens as u64;
        let shape = Role::ALL.map(|role| (spec.role(role).n as u64, spec.role(role).k as u64));
        Self {
            linear: shape.map(|(n, k)| tokens * n * k / INT8_SPEEDUP),
            gram: shape.map(|(_, k)| gram_work(tokens as usize, k as usize)),
            attention: tokens * tokens * (spec.num_heads * spec.head_dim) as u64,
        }
    }

    /// All passes over the window: qkv and up run twice, the others once.
    pub fn total(&self) -> u64 {
        let [qkv, out, up, down] = self.linear;
        qkv + out + 2 * up + down + self.gram.iter().sum::<u64>() + self.attention
    }
}

/// Work of accumulating a Gram matrix.
pub fn gram_work(tokens: usize, k: usize) -> u64 {
    (tokens * k) as u64 * k as u64 / 2
}

/// All work of a run: passes over the windows and the searches.
pub fn model_work(config: &ModelConfig, options: &QuantOptions, windows: &Windows) -> u64 {
    let (size, search) = (options.group_size, options.search);
    let (count, tokens) = (windows.len(), windows.window_len());
    let spec = BlockSpec::new(config, 0);
    let searched = Role::ALL.map(|role| search_work(spec.role(role).n, spec.role(role).k, size, search));
    let block = count as u64 * PassWork::new(&spec, tokens).total() + searched.iter().sum::<u64>();
    let head = match options.lm_head {
        TensorScheme::W4 => {
            let k = config.hidden_size;
            count as u64 * gram_work(tokens, k) + search_work(config.vocab_size, k, size, search)
        }
        TensorScheme::Float | TensorScheme::W8 => 0,
    };
    config.num_layers as u64 * block + head
}

fn search_work(n: usize, k: usize, group_size: GroupSize, search: Search) -> u64 {
    n as u64 * RowWork::new(k, group_size, search).total()
}
