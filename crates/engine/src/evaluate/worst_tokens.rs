//! The positions where two models differ most.

/// Positions that are kept.
const KEPT: usize = 10;

/// Tokens before a position that are kept with it.
const TOKENS_BEFORE: usize = 12;

/// A token that a model finds likeliest.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Guess {
    /// The token.
    pub token: u32,
    /// Its probability by that model.
    pub probability: f64,
}

/// A position where two models differ much.
#[derive(Debug, Clone, PartialEq)]
pub struct WorstToken {
    /// The window, from 0.
    pub window: usize,
    /// Its last token that both models have read, from 0.
    pub position: usize,
    /// KL(original || model) of what both say comes next, in nats.
    pub kl_divergence: f64,
    /// The last tokens that both have read.
    pub before: Vec<u32>,
    /// What the original finds likeliest.
    pub original: Guess,
    /// What the model finds likeliest.
    pub model: Guess,
    /// The token that comes; none at the end of a window.
    pub next: Option<u32>,
}

/// The worst positions so far, the worst first; of equals the earlier one.
#[derive(Debug, Clone, Default)]
pub(super) struct WorstTokens {
    kept: Vec<WorstToken>,
}

impl WorstTokens {
    /// Keeps a position of `tokens`, window number `window`, if it is among the worst.
    pub(super) fn offer(
        &mut self,
        kl_divergence: f64,
        (original, model): (Guess, Guess),
        (window, position, tokens): (usize, usize, &[u32]),
    ) {
        let place = self
            .kept
            .partition_point(|kept| kept.kl_divergence >= kl_divergence);
        if place == KEPT {
            return;
        }
        let read = tokens.len().min(position + 1);
        let worst = WorstToken {
            window,
            position,
            kl_divergence,
            before: tokens[read.saturating_sub(TOKENS_BEFORE)..read].to_vec(),
            original,
            model,
            next: tokens.get(position + 1).copied(),
        };
        self.kept.insert(place, worst);
        self.kept.truncate(KEPT);
    }

    /// Those that were kept.
    pub(super) fn into_vec(self) -> Vec<WorstToken> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_kept_in_order_with_what_stands_around_them() {
        let tokens: Vec<u32> = (100..130).collect();
        let mut worst = WorstTokens::default();
        for position in 0..30 {
            let kl = (position * 7 % 30) as f64;
            worst.offer(kl, Default::default(), (3, position, &tokens));
        }
        worst.offer(29.0, Default::default(), (4, 1, &tokens));
        let kept = worst.into_vec();
        let order: Vec<f64> = kept.iter().map(|kept| kept.kl_divergence).collect();
        assert_eq!(
            order,
            [29.0, 29.0, 28.0, 27.0, 26.0, 25.0, 24.0, 23.0, 22.0, 21.0]
        );
        assert_eq!((kept[0].window, kept[0].position), (3, 17));
        assert_eq!((kept[1].window, kept[1].before.as_slice()), (4, &[100, 101][..]));
        assert_eq!((kept[0].before.len(), kept[0].before[11]), (12, 117));
        assert_eq!((kept[0].next, kept[1].next), (Some(118), Some(102)));
    }
}
