//! Mixtures of experts: which tokens go to which expert.

/// The most experts a mixture has.
pub const MAX_EXPERTS: usize = 1024;

/// How the logits of a router become experts and their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoutingRule {
    /// Experts that a token goes to.
    pub num_chosen: usize,
    /// What makes a logit a score.
    pub scoring: RoutingScoring,
    /// Whether the scores of the chosen experts are divided by their sum.
    pub normalized: bool,
    /// What weights are multiplied by.
    pub scale: f32,
}

/// What makes the logits of a router scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingScoring {
    /// A softmax over all experts; the largest logits are chosen.
    Softmax,
    /// A sigmoid of each logit; the largest scores are chosen, each with a bias added that its weight does not have.
    Sigmoid,
}

/// How many experts a token goes to, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertChoice {
    /// Experts to choose from.
    pub num_experts: usize,
    /// Experts that a token goes to.
    pub num_chosen: usize,
}

impl ExpertChoice {
    /// How many experts the choices of `m` tokens fall on when each is as likely as any other.
    pub fn num_active(self, m: usize) -> usize {
        let (experts, chosen) = (self.num_experts as f64, self.num_chosen as f64);
        let missed = (1.0 - chosen / experts).powi(i32::try_from(m).unwrap_or(i32::MAX));
        (experts * (1.0 - missed)).round() as usize
    }

    /// How many of these have how many rows: all choices, shared out as evenly as can be.
    pub fn of_tokens(self, m: usize) -> [(usize, usize); 2] {
        let (pairs, active) = (m * self.num_chosen, self.num_active(m).max(1));
        let (rows, more) = (pairs / active, pairs % active);
        [(active - more, rows), (more, rows + 1)]
    }
}

/// What buffers of a routing are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingShape {
    /// Tokens of a step.
    pub tokens: usize,
    /// Experts to choose from.
    pub num_experts: usize,
    /// Experts that a token goes to.
    pub num_chosen: usize,
    /// Columns of what experts read: the most of any of their linears.
    pub columns: usize,
}

/// What a product of experts reads for each of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertInput {
    /// `[M, K]`: the row of the token that goes to the expert.
    Tokens,
    /// `[M * num_chosen, K]`: row for row.
    Rows,
}

impl ExpertInput {
    /// The row that `row` of a routing reads.
    pub fn row(self, row: usize, routing: &HostRouting) -> usize {
        match self {
            Self::Tokens => routing.tokens[row] as usize,
            Self::Rows => row,
        }
    }
}

/// A routing in the host's memory, for devices that compute there: buffers of fixed capacity that are filled once a block.
///
/// Its rows are the pairs of a token and an expert it goes to, sorted by expert and then by token.
#[derive(Debug, Clone)]
pub struct HostRouting {
    shape: RoutingShape,
    /// `[tokens, num_chosen]`, ascending
    experts: Vec<u32>,
    /// `[tokens, num_chosen]`
    weights: Vec<f32>,
    /// `[tokens, num_chosen]`: rows of the pairs
    rows: Vec<u32>,
    /// `[tokens]`: weight of the shared expert
    shared: Vec<f32>,
    /// `[rows]`
    tokens: Vec<u32>,
    /// `[num_experts + 1]`: first row of each expert, then the number of rows
    starts: Vec<u32>,
}

/// One token's part of a routing while it is filled.
#[derive(Debug)]
pub struct RoutedToken<'a> {
    /// `[num_chosen]`, ascending.
    pub experts: &'a mut [u32],
    /// `[num_chosen]`
    pub weights: &'a mut [f32],
    /// Weight of the shared expert.
    pub shared: &'a mut f32,
}

impl HostRouting {
    /// An empty routing with room for `shape`.
    pub fn new(shape: RoutingShape) -> Self {
        let pairs = shape.tokens.saturating_mul(shape.num_chosen);
        Self {
            shape,
            experts: Vec::with_capacity(pairs),
            weights: Vec::with_capacity(pairs),
            rows: Vec::with_capacity(pairs),
            shared: Vec::with_capacity(shape.tokens),
            tokens: Vec::with_capacity(pairs),
            starts: vec![0; shape.num_experts + 1],
        }
    }

    /// What it was made for.
    pub fn shape(&self) -> RoutingShape {
        self.shape
    }

    /// Tokens of the step.
    pub fn num_tokens(&self) -> usize {
        self.shared.len()
    }

    /// Pairs of a token and an expert.
    pub fn num_rows(&self) -> usize {
        self.tokens.len()
    }

    /// Makes sure that logits and rule are those of this routing.
    ///
    /// # Panics
    /// When `columns` of logits or `rule` are those of another one.
    pub fn assert_fits(&self, columns: usize, rule: &RoutingRule) {
        let RoutingShape {
            num_experts,
            num_chosen,
            ..
        } = self.shape;
        assert!(
            rule.num_chosen == num_chosen && (columns == num_experts || columns == num_experts + 1),
            "{columns} logits and {rule:?} for {:?}",
            self.shape
        );
    }

    /// Takes `num_tokens` tokens, whose parts are to be filled; then [`Self::sort`].
    ///
    /// # Panics
    /// When there is no room for so many: the engine checks that.
    pub fn begin(&mut self, num_tokens: usize) -> impl Iterator<Item = RoutedToken<'_>> {
        assert!(
            num_tokens <= self.shape.tokens,
            "{num_tokens} tokens, room for {:?}",
            self.shape
        );
        let (chosen, pairs) = (self.shape.num_chosen, num_tokens * self.shape.num_chosen);
        self.experts.resize(pairs, 0);
        self.weights.resize(pairs, 0.0);
        self.rows.resize(pairs, 0);
        self.tokens.resize(pairs, 0);
        self.shared.resize(num_tokens, 1.0);
        let parts = self
            .experts
            .chunks_exact_mut(chosen)
            .zip(self.weights.chunks_exact_mut(chosen));
        parts
            .zip(&mut self.shared)
            .map(|((experts, weights), shared)| RoutedToken {
                experts,
                weights,
                shared,
            })
    }

    /// Sorts the pairs by expert and then by token.
    pub fn sort(&mut self) {
        self.starts.fill(0);
        for &expert in &self.experts {
            self.starts[expert as usize + 1] += 1;
        }
        for expert in 0..self.shape.num_experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        let chosen = self.shape.num_chosen;
        for (pair, (&expert, row)) in self.experts.iter().zip(&mut self.rows).enumerate() {
            // The start of an expert goes on until it is that of the next one.
            let next = &mut self.starts[expert as usize];
            *row = *next;
            self.tokens[*next as usize] = (pair / chosen) as u32;
            *next += 1;
        }
        self.starts.copy_within(0..self.shape.num_experts, 1);
        self.starts[0] = 0;
    }

    /// Rows of an expert.
    pub fn rows_of(&self, expert: usize) -> std::ops::Range<usize> {
        self.starts[expert] as usize..self.starts[expert + 1] as usize
    }

    /// The token of each row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Weight and row of each expert of a token, by ascending expert.
    #[inline(always)]
    pub fn of_token(&self, token: usize) -> impl Iterator<Item = (f32, usize)> + Clone {
        let pairs = token * self.shape.num_chosen..(token + 1) * self.shape.num_chosen;
        let rows = self.rows[pairs.clone()].iter().map(|&row| row as usize);
        self.weights[pairs].iter().copied().zip(rows)
    }

    /// Weight of the shared expert for a token.
    pub fn shared(&self, token: usize) -> f32 {
        self.shared[token]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_shared_out_without_a_remainder() {
        for (num_experts, num_chosen) in [(8, 2), (128, 8), (64, 64), (3, 1)] {
            let choice = ExpertChoice {
                num_experts,
                num_chosen,
            };
            for m in [0, 1, 4, 12, 20, 1_000] {
                let groups = choice.of_tokens(m);
                let rows: usize = groups.iter().map(|(experts, rows)| experts * rows).sum();
                assert_eq!(rows, m * num_chosen, "{choice:?}, {m} tokens");
                assert!(groups[0].0 + groups[1].0 <= num_experts);
            }
        }
        assert_eq!(
            ExpertChoice {
                num_experts: 64,
                num_chosen: 8
            }
            .of_tokens(1),
            [(8, 1), (0, 2)]
        );
    }

    #[test]
    fn rows_are_sorted_by_expert_and_then_by_token() {
        let shape = RoutingShape {
            tokens: 4,
            num_experts: 5,
            num_chosen: 2,
            columns: 1,
        };
        let mut routing = HostRouting::new(shape);
        let chosen = [[1, 4], [0, 1], [1, 4]];
        for (token, experts) in routing.begin(3).zip(chosen) {
            token.experts.copy_from_slice(&experts);
            token.weights.copy_from_slice(&[0.25, 0.75]);
        }
        routing.sort();
        assert_eq!(routing.tokens(), [1, 0, 1, 2, 0, 2]);
        let ranges: Vec<_> = (0..5).map(|expert| routing.rows_of(expert)).collect();
        assert_eq!(ranges, [0..1, 1..4, 4..4, 4..4, 4..6]);
        assert_eq!(routing.of_token(2).collect::<Vec<_>>(), [(0.25, 3), (0.75, 5)]);
        // Fewer tokens leave nothing behind.
        routing
            .begin(1)
            .for_each(|token| token.experts.copy_from_slice(&[2, 3]));
        routing.sort();
        assert_eq!(
            (routing.num_rows(), routing.rows_of(1), routing.rows_of(3)),
            (2, 0..0, 1..2)
        );
    }
}
