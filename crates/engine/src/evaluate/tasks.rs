//! Tasks with right answers: each option of an item is scored by its log-likelihood after its context.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dualgrain_device::Device;
use serde::Serialize;

use super::error::EvaluateError;
use super::item_score::ItemScore;
use super::moments::Moments;
use super::options::{Run, encode_task};
use super::scoring::{Progress, ScoredRows, Scorer, argmax, log_probability};
use super::task_file::{Task, TaskForm};
use super::windows::check_context;
use crate::Model;
use crate::text::tokenizer::Tokenizer;

/// A model's result on a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskReport {
    /// Name of the file without its ending.
    pub task: String,
    /// Form of the items.
    pub form: TaskForm,
    /// Items scored.
    pub items: usize,
    /// Share of items whose right option is the likeliest; for [`TaskForm::Continuation`] whose continuation is the
    /// greedy one.
    pub accuracy: f64,
    /// Its standard error.
    pub accuracy_stderr: f64,
    /// Accuracy when log-likelihoods are divided by the bytes of their continuation ([`TaskForm::Choices`] only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_byte_normalized: Option<f64>,
    /// Its standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_byte_normalized_stderr: Option<f64>,
    /// exp of the mean negative log-likelihood of a continuation ([`TaskForm::Continuation`] only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Its standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_stderr: Option<f64>,
    /// Items of which a context had to be cut.
    pub cut_items: usize,
}

/// Scores every option of every item and sums up. `context` tokens of the model are used at most. All items are encoded
/// first, so an item that cannot be scored costs no time.
///
/// # Errors
/// A context beyond the model's positions, a continuation that does not fit the context, a model that fails or gives
/// NaN.
pub fn score_task<D: Device>(
    model: &Arc<Model<D>>,
    tokenizer: &Tokenizer,
    task: &Task,
    context: usize,
    progress: &mut Progress<'_>,
) -> Result<(TaskReport, Vec<ItemScore>), EvaluateError> {
    check_context(context, model.config().max_positions)?;
    let (runs, mut scores) = encode_task(model.config(), tokenizer, task, context)?;
    // The cache is made for the longest run, not for all the model could take.
    let longest = runs.iter().map(|run| run.inputs.len()).max().unwrap_or(0);
    let mut scorer = Scorer::for_sequences(model, longest)?;
    let mut under_way = BTreeMap::new();
    for run in &runs {
        under_way.insert(scorer.admit(&run.inputs, run.first_scored())?, run);
    }
    while let Some(step) = scorer.step()? {
        for rows in &step.rows {
            if let Some(run) = under_way.get(&rows.id) {
                add_rows(&mut scorer, rows, (run, task.path()), &mut scores)?;
            }
        }
        step.finished.iter().for_each(|id| _ = under_way.remove(id));
        // Runs begin in the order of their items.
        let next_item = under_way.values().next().map_or(scores.len(), |run| run.item());
        progress(next_item, scores.len());
    }
    Ok((report(task, &scores), scores))
}

/// Adds scored rows of a run to its options.
fn add_rows<D: Device>(
    scorer: &mut Scorer<D>,
    rows: &ScoredRows,
    (run, path): (&Run, &Path),
    scores: &mut [ItemScore],
) -> Result<(), EvaluateError> {
    let vocab_size = scorer.vocab_size();
    for rows in rows.parts(scorer.num_rows()) {
        let log_probabilities = scorer.log_probabilities(&rows)?.chunks_exact(vocab_size);
        for (position, row) in rows.positions.zip(log_probabilities) {
            add_row(run, position, row, path, scores)?;
        }
    }
    Ok(())
}

/// Adds the log-probabilities after `position` to the continuations that have a token there.
fn add_row(
    run: &Run,
    position: usize,
    row: &[f32],
    path: &Path,
    scores: &mut [ItemScore],
) -> Result<(), EvaluateError> {
    let likeliest = argmax(row);
    for continuation in &run.continuations {
        let Some(idx) = (position + 1).checked_sub(continuation.start) else {
            continue;
        };
        if let Some(&target) = continuation.targets.get(idx) {
            let place = || (format!("{}:{}", path.display(), run.line), position + 1);
            let (item, option) = continuation.place;
            let score = &mut scores[item].options[option];
            score.loglikelihood += log_probability(row, target, place)?;
            score.greedy &= likeliest == target as usize;
        }
    }
    Ok(())
}

fn report(task: &Task, scores: &[ItemScore]) -> TaskReport {
    let share = |is_right: &dyn Fn(&ItemScore) -> bool| {
        let mut moments = Moments::default();
        scores
            .iter()
            .for_each(|score| moments.add(f64::from(u8::from(is_right(score)))));
        moments
    };
    let accuracy = match task.form() {
        TaskForm::Continuation => share(&ItemScore::is_greedy),
        _ => share(&|score| score.gold == Some(score.best())),
    };
    let normalized =
        (task.form() == TaskForm::Choices).then(|| share(&|score| score.gold == Some(score.best_per_byte())));
    let loglikelihood = (task.form() == TaskForm::Continuation).then(|| {
        let mut moments = Moments::default();
        scores
            .iter()
            .flat_map(|score| &score.options)
            .for_each(|option| moments.add(option.loglikelihood));
        moments
    });
    let perplexity = loglikelihood.map(|moments| (-moments.mean).exp());
    TaskReport {
        task: task.name(),
        form: task.form(),
        items: scores.len(),
        accuracy: accuracy.mean,
        accuracy_stderr: accuracy.stderr(),
        accuracy_byte_normalized: normalized.map(|moments| moments.mean),
        accuracy_byte_normalized_stderr: normalized.map(|moments| moments.stderr()),
        perplexity,
        perplexity_stderr: perplexity
            .zip(loglikelihood)
            .map(|(p, moments)| p * moments.stderr()),
        cut_items: scores
            .iter()
            .filter(|score| score.options.iter().any(|option| option.cut_tokens > 0))
            .count(),
    }
}
