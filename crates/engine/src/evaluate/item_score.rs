//! Scores of an item and its options.

use serde::Serialize;

/// How a model sees one option.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OptionScore {
    /// Sum of the log-probabilities of the continuation's tokens, in nats.
    pub loglikelihood: f64,
    /// Tokens of the continuation.
    pub tokens: usize,
    /// Whether each of them is the likeliest where it stands.
    pub greedy: bool,
    /// UTF-8 bytes of the continuation.
    pub bytes: usize,
    /// Tokens of the context that were cut off on the left.
    pub cut_tokens: usize,
}

/// How a model sees one item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ItemScore {
    /// Its line in the file, from 1.
    pub line: usize,
    /// Each option, in order.
    pub options: Vec<OptionScore>,
    /// Index of the right option.
    pub gold: Option<usize>,
}

impl ItemScore {
    /// Index of the likeliest option, the first of equals.
    pub fn best(&self) -> usize {
        self.best_by(|option| option.loglikelihood)
    }

    /// Index of the likeliest option by its log-likelihood for a byte, the first of equals.
    pub fn best_per_byte(&self) -> usize {
        self.best_by(|option| option.loglikelihood / option.bytes.max(1) as f64)
    }

    fn best_by(&self, value: impl Fn(&OptionScore) -> f64) -> usize {
        let mut best = (0, f64::NEG_INFINITY);
        for (idx, option) in self.options.iter().enumerate() {
            if value(option) > best.1 {
                best = (idx, value(option));
            }
        }
        best.0
    }

    /// Whether every option is what the model would have said itself.
    pub(super) fn is_greedy(&self) -> bool {
        self.options.iter().all(|option| option.greedy)
    }
}
