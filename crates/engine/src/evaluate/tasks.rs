//! Tasks with right answers: each option of an item is scored by its log-likelihood after its context.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use dualgrain_device::Device;
use serde::Serialize;

use super::error::EvaluateError;
use super::item_score::ItemScore;
use super::moments::Moments;
use super::options::{Run, encode_task, pack};
use super::scoring::{Progress, RowBuffer, argmax, log_probability, session};
use super::task_file::{Task, TaskForm};
use super::windows::check_context;
use crate::text::tokenizer::Tokenizer;
use crate::{Model, Session};

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

/// Tokens the KV cache of a scoring session holds, shared by as many sequences as fit.
const CACHE_TOKENS: usize = 8192;
/// More sequences than this in a step gain nothing.
const NUM_SEQUENCES_MAX: usize = 16;

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
    let (mut runs, mut scores) = encode_task(model.config(), tokenizer, task, context)?;
    // The cache is made for the longest run, not for all the model could take.
    let longest = runs.iter().map(|run| run.inputs.len()).max().unwrap_or(0).max(2);
    let num_sequences = (CACHE_TOKENS / longest).clamp(1, NUM_SEQUENCES_MAX);
    let mut scorer = Scorer {
        session: session(model, num_sequences, longest)?,
        buffer: RowBuffer::new(model.clone()),
        path: task.path(),
    };
    for group in pack(&runs, num_sequences) {
        scorer.score(&mut runs, group.clone(), &mut scores)?;
        let next_item = runs.get(group.end).map_or(scores.len(), Run::item);
        progress(next_item, scores.len());
    }
    Ok((report(task, &scores), scores))
}

struct Scorer<'a, D: Device> {
    session: Session<D>,
    buffer: RowBuffer<D>,
    path: &'a Path,
}

/// A part of a run inside a step.
struct Part {
    run_idx: usize,
    /// Row of the step where the part begins.
    first_row: usize,
    /// Positions of the run it holds.
    positions: Range<usize>,
}

impl<D: Device> Scorer<'_, D> {
    /// Runs a group, one sequence each, and adds its continuations to their options.
    fn score(
        &mut self,
        runs: &mut [Run],
        group: Range<usize>,
        scores: &mut [ItemScore],
    ) -> Result<(), EvaluateError> {
        for sequence in 0..group.len() {
            self.session.reset(sequence);
        }
        loop {
            let parts = self.run_step(runs, group.clone())?;
            if parts.is_empty() {
                return Ok(());
            }
            self.add_step(runs, &parts, scores)?;
        }
    }

    /// Runs the next tokens of a group in one step and says what lies where; empty when the group is done.
    fn run_step(&mut self, runs: &mut [Run], group: Range<usize>) -> Result<Vec<Part>, EvaluateError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut batch: Vec<(usize, &[u32])> = Vec::new();
        let step_tokens = self.session.limits().step_tokens;
        let mut num_rows = 0;
        for (sequence, run_idx) in group.enumerate() {
            let run = &runs[run_idx];
            let end = run.inputs.len().min(run.num_run + step_tokens - num_rows);
            let positions = run.num_run..end;
            if !positions.is_empty() {
                batch.push((sequence, &run.inputs[positions.clone()]));
                parts.push(Part {
                    run_idx,
                    first_row: num_rows,
                    positions: positions.clone(),
                });
                num_rows += positions.len();
            }
        }
        if !batch.is_empty() {
            self.session.run(&batch)?;
        }
        for part in &parts {
            runs[part.run_idx].num_run = part.positions.end;
        }
        Ok(parts)
    }

    /// Adds the scored positions of the last step to their options.
    fn add_step(
        &mut self,
        runs: &[Run],
        parts: &[Part],
        scores: &mut [ItemScore],
    ) -> Result<(), EvaluateError> {
        let scored = |part: &Part| {
            let (run_idx, first_row, positions) = (part.run_idx, part.first_row, part.positions.clone());
            let from = positions.start.max(runs[run_idx].first_scored());
            (from..positions.end).map(move |at| (run_idx, at, (first_row + at - positions.start) as u32))
        };
        let wanted: Vec<(usize, usize, u32)> = parts.iter().flat_map(scored).collect();
        let vocab_size = self.buffer.vocab_size();
        for wanted in wanted.chunks(self.buffer.num_rows()) {
            let rows: Vec<u32> = wanted.iter().map(|&(_, _, row)| row).collect();
            let values = self.buffer.fill(&mut self.session, &rows)?;
            for (&(run_idx, position, _), row) in wanted.iter().zip(values.chunks_exact(vocab_size)) {
                add_row(&runs[run_idx], position, row, self.path, scores)?;
            }
        }
        Ok(())
    }
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
