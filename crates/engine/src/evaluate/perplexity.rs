//! Perplexity over windows that do not overlap.

use std::sync::Arc;

use dualgrain_device::Device;
use serde::Serialize;

use super::error::EvaluateError;
use super::moments::Moments;
use super::scoring::{Progress, Scorer, log_probability};
use super::windows::Windows;
use crate::Model;

/// Perplexity of a model on a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PerplexityReport {
    /// exp of the mean negative log-likelihood over all predictions of all windows.
    pub perplexity: f64,
    /// Its standard error, `perplexity * mean_nll_stderr`.
    pub perplexity_stderr: f64,
    /// Mean negative log-likelihood of a token, in nats.
    pub mean_nll: f64,
    /// Its standard error.
    pub mean_nll_stderr: f64,
    /// Predictions: `windows * (context - 1)`.
    pub tokens: usize,
    /// Windows of the text.
    pub windows: usize,
    /// Tokens of a window.
    pub context: usize,
}

/// Runs the windows through `model`; each begins with an empty cache, and its first token is not predicted.
///
/// # Errors
/// Windows longer than the model's positions, tokens outside its vocabulary, a model that gives NaN.
pub fn perplexity<D: Device>(
    model: &Arc<Model<D>>,
    windows: &Windows,
    progress: &mut Progress<'_>,
) -> Result<PerplexityReport, EvaluateError> {
    let mut scorer = Scorer::new(model, 1, windows.context())?;
    let mut nll = Moments::default();
    for (idx, window) in windows.iter().enumerate() {
        add_window(&mut scorer, (idx, window), &mut nll)?;
        progress(idx + 1, windows.len());
    }
    Ok(report(&nll, windows))
}

pub(super) fn report(nll: &Moments, windows: &Windows) -> PerplexityReport {
    let perplexity = nll.mean.exp();
    PerplexityReport {
        perplexity,
        perplexity_stderr: perplexity * nll.stderr(),
        mean_nll: nll.mean,
        mean_nll_stderr: nll.stderr(),
        tokens: nll.count,
        windows: windows.len(),
        context: windows.context(),
    }
}

fn add_window<D: Device>(
    scorer: &mut Scorer<D>,
    (idx, window): (usize, &[u32]),
    nll: &mut Moments,
) -> Result<(), EvaluateError> {
    // The last token predicts nothing that can be checked, so it is not run.
    let (inputs, targets) = (&window[..window.len() - 1], &window[1..]);
    scorer.admit(inputs, 0)?;
    let (vocab_size, count) = (scorer.vocab_size(), scorer.num_rows());
    while let Some(step) = scorer.step()? {
        for rows in step.rows.iter().flat_map(|rows| rows.parts(count)) {
            let log_probabilities = scorer.log_probabilities(&rows)?.chunks_exact(vocab_size);
            for (position, row) in rows.positions.zip(log_probabilities) {
                let place = || (format!("window {idx}"), position + 1);
                nll.add(-log_probability(row, targets[position], place)?);
            }
        }
    }
    Ok(())
}
