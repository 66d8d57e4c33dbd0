//! How far a quantized model is from its original: KL divergence and agreement on the likeliest token.

use std::sync::Arc;

use dualgrain_device::Device;
use dualgrain_threads::Pool;

use super::distribution::{ByPosition, Percentiles, PositionMean};
use super::error::EvaluateError;
use super::moments::Moments;
use super::perplexity::report;
use super::scoring::{Progress, ScoredRows, Scorer, argmax, log_probability};
use super::windows::Windows;
use super::worst_tokens::{Guess, WorstToken, WorstTokens};
use crate::Model;

/// A model against the original it was made from, on one text.
#[derive(Debug, Clone, PartialEq)]
pub struct DivergenceReport {
    /// Perplexity of the model.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_stderr: f64,
    /// Perplexity of the original.
    pub perplexity_reference: f64,
    /// Its standard error.
    pub perplexity_reference_stderr: f64,
    /// `perplexity / perplexity_reference`.
    pub perplexity_ratio: f64,
    /// Its standard error, from paired predictions: far smaller than those of the two perplexities.
    pub perplexity_ratio_stderr: f64,
    /// Mean KL(original || model) over all positions, in nats.
    pub kl_divergence: f64,
    /// Its standard error.
    pub kl_divergence_stderr: f64,
    /// How KL(original || model) is spread over all positions.
    pub kl_percentiles: Percentiles,
    /// Its mean by where in its window a position stands.
    pub kl_by_position: Vec<PositionMean>,
    /// Mean of what the probability of the text's own next token changes by, from the original to the model.
    pub probability_change: f64,
    /// Its standard error.
    pub probability_change_stderr: f64,
    /// Root of the mean square of the same change.
    pub probability_change_rms: f64,
    /// The positions with the largest KL divergence, the largest first.
    pub worst_tokens: Vec<WorstToken>,
    /// Share of all positions where both models find the same token likeliest.
    pub top1_agreement: f64,
    /// Its standard error.
    pub top1_agreement_stderr: f64,
    /// Predictions behind the perplexities: `windows * (context - 1)`.
    pub tokens: usize,
    /// Positions behind divergence and agreement: `windows * context`.
    pub positions: usize,
    /// Windows of the text.
    pub windows: usize,
    /// Tokens of a window.
    pub context: usize,
}

/// Runs both models side by side over the windows and compares their logits on `pool`. A part of a window's logits is in
/// memory at a time.
///
/// # Errors
/// Different vocabularies; otherwise as [`super::perplexity()`].
pub fn divergence<A: Device, D: Device>(
    original: &Arc<Model<A>>,
    model: &Arc<Model<D>>,
    windows: &Windows,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<DivergenceReport, EvaluateError> {
    let (a, b) = (original.config().vocab_size, model.config().vocab_size);
    if a != b {
        return Err(EvaluateError::Vocabulary {
            original: a,
            other: b,
        });
    }
    let mut pair = Pair {
        original: Scorer::new(original, 1, windows.context())?,
        model: Scorer::new(model, 1, windows.context())?,
        pool,
        rows: Vec::new(),
        sums: Sums::default(),
    };
    for (idx, window) in windows.iter().enumerate() {
        pair.add_window(idx, window)?;
        progress(idx + 1, windows.len());
    }
    Ok(pair.sums.report(windows))
}

struct Pair<'a, A: Device, D: Device> {
    original: Scorer<A>,
    model: Scorer<D>,
    pool: &'a Pool,
    rows: Vec<RowDivergence>,
    sums: Sums,
}

/// What one position contributes.
#[derive(Clone, Copy, Default)]
struct RowDivergence {
    kl: f64,
    original: Guess,
    model: Guess,
}

#[derive(Default)]
struct Sums {
    nll: Moments,
    nll_original: Moments,
    nll_difference: Moments,
    kl: Moments,
    kl_values: Vec<f64>,
    kl_by_position: ByPosition,
    worst: WorstTokens,
    change: Moments,
    change_squared: Moments,
    agreement: Moments,
}

impl<A: Device, B: Device> Pair<'_, A, B> {
    fn add_window(&mut self, idx: usize, window: &[u32]) -> Result<(), EvaluateError> {
        self.original.admit(window, 0)?;
        self.model.admit(window, 0)?;
        // Schedulers with equal limits cut equal sequences into equal steps.
        while let (Some(original), Some(model)) = (self.original.step()?, self.model.step()?) {
            let count = self.model.num_rows();
            for (original, model) in original.rows.iter().zip(&model.rows) {
                for pair in original.parts(count).zip(model.parts(count)) {
                    self.add_rows(&pair, window, idx)?;
                }
            }
        }
        Ok(())
    }

    /// Adds rows of the last steps; each but the window's last has a token after it.
    fn add_rows(
        &mut self,
        (original, model): &(ScoredRows, ScoredRows),
        window: &[u32],
        window_idx: usize,
    ) -> Result<(), EvaluateError> {
        let vocab_size = self.model.vocab_size();
        let (first, len) = (model.positions.start, model.positions.len());
        let p = self.original.log_probabilities(original)?;
        let q = self.model.log_probabilities(model)?;
        self.rows.clear();
        self.rows.resize(len, RowDivergence::default());
        self.pool.for_each_chunk(&mut self.rows, 1, |idx, row| {
            let range = idx * vocab_size..(idx + 1) * vocab_size;
            row.fill(compare(&p[range.clone()], &q[range]));
        });
        for (i, row) in self.rows.iter().enumerate() {
            let place = || (format!("window {window_idx}"), first + i + 1);
            checked_divergence(row.kl, place)?;
            self.sums.add_row(row, (window_idx, first + i, window));
            if let Some(&target) = window.get(first + i + 1) {
                let range = i * vocab_size..(i + 1) * vocab_size;
                let original = log_probability(&p[range.clone()], target, place)?;
                self.sums
                    .add_nll(-original, -log_probability(&q[range], target, place)?);
            }
        }
        Ok(())
    }
}

/// What two rows of log-probabilities, the original's `p` and the model's `q`, contribute.
fn compare(p: &[f32], q: &[f32]) -> RowDivergence {
    RowDivergence {
        kl: kl_divergence(p, q),
        original: guess(p),
        model: guess(q),
    }
}

/// KL(p || q) of two rows of log-probabilities, in nats.
pub fn kl_divergence(p: &[f32], q: &[f32]) -> f64 {
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let (p, q) = (f64::from(p), f64::from(q));
        // An impossible token adds nothing, whatever q says.
        if p == f64::NEG_INFINITY {
            0.0
        } else {
            p.exp() * (p - q)
        }
    });
    terms.sum()
}

/// The likeliest token of a row of log-probabilities.
fn guess(row: &[f32]) -> Guess {
    let token = argmax(row);
    Guess {
        token: token as u32,
        probability: row.get(token).map_or(0.0, |&log| f64::from(log).exp()),
    }
}

fn checked_divergence(kl: f64, place: impl FnOnce() -> (String, usize)) -> Result<(), EvaluateError> {
    if kl.is_finite() {
        return Ok(());
    }
    let (place, position) = place();
    Err(EvaluateError::NotFinite {
        what: "KL divergence",
        place,
        position,
        expected: "a finite number",
        got: kl,
    })
}

impl Sums {
    /// Adds what a position of a window contributes, whatever comes after it.
    fn add_row(&mut self, row: &RowDivergence, place: (usize, usize, &[u32])) {
        self.kl.add(row.kl);
        self.kl_values.push(row.kl);
        self.kl_by_position.add(place.1, row.kl);
        self.worst.offer(row.kl, (row.original, row.model), place);
        let agrees = row.original.token == row.model.token;
        self.agreement.add(f64::from(u8::from(agrees)));
    }

    fn add_nll(&mut self, original: f64, model: f64) {
        self.nll_original.add(original);
        self.nll.add(model);
        self.nll_difference.add(model - original);
        let change = (-model).exp() - (-original).exp();
        self.change.add(change);
        self.change_squared.add(change * change);
    }

    fn report(self, windows: &Windows) -> DivergenceReport {
        let (model, original) = (report(&self.nll, windows), report(&self.nll_original, windows));
        let perplexity_ratio = self.nll_difference.mean.exp();
        DivergenceReport {
            perplexity: model.perplexity,
            perplexity_stderr: model.perplexity_stderr,
            perplexity_reference: original.perplexity,
            perplexity_reference_stderr: original.perplexity_stderr,
            perplexity_ratio,
            perplexity_ratio_stderr: perplexity_ratio * self.nll_difference.stderr(),
            kl_divergence: self.kl.mean,
            kl_divergence_stderr: self.kl.stderr(),
            kl_percentiles: Percentiles::of(self.kl_values),
            kl_by_position: self.kl_by_position.means(windows.context()),
            probability_change: self.change.mean,
            probability_change_stderr: self.change.stderr(),
            probability_change_rms: self.change_squared.mean.sqrt(),
            worst_tokens: self.worst.into_vec(),
            top1_agreement: self.agreement.mean,
            top1_agreement_stderr: self.agreement.stderr(),
            tokens: model.tokens,
            positions: self.kl.count,
            windows: windows.len(),
            context: windows.context(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_two_coins() {
        let row = |heads: f32| [heads.ln(), (1.0 - heads).ln()];
        let result = compare(&row(0.5), &row(0.25));
        // 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.5 ln(4 / 3)
        assert!((result.kl - 0.5 * (4.0f64 / 3.0).ln()).abs() < 1e-7);
        // Heads come first among equals, tails is likelier in the other.
        assert_eq!((result.original.token, result.model.token), (0, 1));
        assert!((result.model.probability - 0.75).abs() < 1e-7);
        let same = compare(&row(0.7), &row(0.7));
        assert_eq!((same.kl, same.original), (0.0, same.model));
    }

    #[test]
    fn an_impossible_token_of_the_original_adds_nothing() {
        let result = compare(&[0.0, f32::NEG_INFINITY], &[0.5f32.ln(), 0.5f32.ln()]);
        assert!((result.kl - 2f64.ln()).abs() < 1e-7);
    }
}
