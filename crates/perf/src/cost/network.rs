//! The sizes of a language model that decide its cost.

use dualgrain_device::ExpertChoice;

/// A model's sizes. The binary fills it from `config.json`; weights are not needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What it is called in answers and messages.
    pub name: String,
    /// Its linears.
    pub linears: Vec<Linear>,
    /// Blocks.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward.
    pub ffn_size: usize,
    /// The feed-forward multiplies two projections.
    pub gated: bool,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Entries of the logits.
    pub vocab_size: usize,
    /// Rows of the token and position embeddings together.
    pub num_embeddings: usize,
    /// The output layer uses the embedding's weights.
    pub tie_embeddings: bool,
    /// Positions the model was made for.
    pub max_positions: usize,
    /// For each layer, how many last tokens a query sees; `None` sees all.
    pub sliding_windows: Vec<Option<usize>>,
}

/// A linear of which there are `count`, and which a step runs as often, or, of experts, as tokens choose: `D[M,N] = A[M,K] * B[N,K]^T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear {
    /// `qkv`, `out`, `up`, `down`, `expert_up`, `expert_down` or `head`.
    pub name: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// How many there are.
    pub count: usize,
    /// Of a linear of experts: how these are chosen.
    pub choice: Option<ExpertChoice>,
    /// Whether it makes logits, which are wanted of a sequence's last token only.
    pub head: bool,
}

impl Linear {
    /// How many products a step of `m` tokens runs, and how many rows each has; of experts some may have one more than others.
    pub(crate) fn in_step(&self, m: usize) -> [(usize, usize); 2] {
        match self.choice {
            None => [(self.count, m), (0, 0)],
            Some(choice) => {
                let blocks = self.count / choice.num_experts.max(1);
                choice
                    .of_tokens(m)
                    .map(|(experts, rows)| (blocks * experts, rows))
            }
        }
    }
}

impl Network {
    /// Columns of queries.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Columns of keys, and of values.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Positions that the queries at positions `first..last` of one sequence see, summed over queries and layers.
    pub(crate) fn seen_positions(&self, first: usize, last: usize) -> f64 {
        let triangle = |end: usize, window: usize| {
            let (inside, beyond) = (end.min(window) as f64, end.saturating_sub(window) as f64);
            inside * (inside + 1.0) / 2.0 + beyond * window as f64
        };
        self.sliding_windows
            .iter()
            .map(|window| {
                let window = window.unwrap_or(usize::MAX);
                triangle(last, window) - triangle(first, window)
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_seen_are_those_a_loop_counts() {
        let network = Network {
            name: String::new(),
            linears: Vec::new(),
            num_layers: 2,
            hidden_size: 8,
            ffn_size: 8,
            gated: false,
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 8,
            vocab_size: 8,
            num_embeddings: 8,
            tie_embeddings: false,
            max_positions: 100,
            sliding_windows: vec![None, Some(7)],
        };
        for (first, last) in [(0, 0), (0, 1), (0, 40), (3, 5), (6, 8), (20, 33)] {
            let counted: usize = (first..last).map(|p| (p + 1) + (p + 1).min(7)).sum();
            assert_eq!(
                network.seen_positions(first, last),
                counted as f64,
                "{first}..{last}"
            );
        }
    }
}
