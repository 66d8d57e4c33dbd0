//! Tasks with right answers: each option of an item is scored by its log-likelihood after its context.
//!
//! The conventions are those of lm-evaluation-harness. An option is a context and a continuation, joined by a space;
//! whitespace at the end of the context moves to the continuation. `whole = encode(context + continuation)`, both with
//! special tokens; the first `len(encode(context))` tokens are context, the rest is scored. What does not fit the model's
//! context is cut off on the left.

use std::path::Path;
use std::sync::Arc;

use dualgrain_kernels::Backend;
use serde::Serialize;

use super::scoring::{RowBuffer, argmax, checked};
use super::task_file::{Task, TaskForm, TaskItem};
use super::{EvaluateError, Moments, Progress, STEP_TOKENS, session};
use crate::tokenizer::Tokenizer;
use crate::{Model, Session};

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

/// Options run together. Each takes a whole context of KV cache, so not many.
const NUM_SEQUENCES: usize = 4;
/// Items whose options are packed into steps together.
const ITEMS_TOGETHER: usize = 16;

/// Scores every option of every item and sums up. `context` tokens of the model are used at most.
///
/// # Errors
/// A continuation that does not fit the context, a model that fails or gives NaN.
pub fn score_task<B: Backend>(
    model: &Arc<Model<B>>,
    tokenizer: &Tokenizer,
    task: &Task,
    context: usize,
    progress: &mut Progress<'_>,
) -> Result<(TaskReport, Vec<ItemScore>), EvaluateError> {
    let mut scorer = Scorer {
        session: session(model, NUM_SEQUENCES, context)?,
        buffer: RowBuffer::new(model.clone()),
        tokenizer,
        path: task.path(),
        context,
    };
    let mut scores = Vec::with_capacity(task.items().len());
    for items in task.items().chunks(ITEMS_TOGETHER) {
        scores.extend(scorer.score(items)?);
        progress(scores.len(), task.items().len());
    }
    Ok((report(task, &scores), scores))
}

struct Scorer<'a, B: Backend> {
    session: Session<B>,
    buffer: RowBuffer<B>,
    tokenizer: &'a Tokenizer,
    path: &'a Path,
    context: usize,
}

/// Tokens to run once, and the continuations to score on them: options that differ in their last token only (the
/// letters of MMLU) share their run.
struct Run {
    inputs: Vec<u32>,
    line: usize,
    continuations: Vec<Continuation>,
    num_run: usize,
}

struct Continuation {
    /// Item and option this is.
    place: (usize, usize),
    /// First scored token in the whole; its log-probability is in the row before.
    start: usize,
    targets: Vec<u32>,
}

/// A part of a run inside a step.
struct Part {
    run_idx: usize,
    /// Row of the step where the part begins.
    first_row: usize,
    /// Positions of the run it holds.
    positions: std::ops::Range<usize>,
}

impl<B: Backend> Scorer<'_, B> {
    fn score(&mut self, items: &[TaskItem]) -> Result<Vec<ItemScore>, EvaluateError> {
        let (mut runs, mut scores) = self.prepare(items)?;
        // Sequences of the session under way, each with its run.
        for group in pack(&runs) {
            for sequence in 0..group.len() {
                self.session.reset(sequence);
            }
            loop {
                let parts = self.run_step(&mut runs, &group)?;
                if parts.is_empty() {
                    break;
                }
                self.add_step(&runs, &parts, &mut scores)?;
            }
        }
        Ok(scores)
    }

    fn prepare(&self, items: &[TaskItem]) -> Result<(Vec<Run>, Vec<ItemScore>), EvaluateError> {
        let mut runs: Vec<Run> = Vec::new();
        let mut scores = Vec::with_capacity(items.len());
        for (item_idx, item) in items.iter().enumerate() {
            let first_run = runs.len();
            let mut options = Vec::with_capacity(item.options.len());
            for (option_idx, option) in item.options.iter().enumerate() {
                let (whole, start, cut_tokens) = self.encode(item.line, option)?;
                options.push(OptionScore {
                    loglikelihood: 0.0,
                    tokens: whole.len() - start,
                    greedy: true,
                    bytes: option.1.len(),
                    cut_tokens,
                });
                let continuation = Continuation {
                    place: (item_idx, option_idx),
                    start,
                    targets: whole[start..].to_vec(),
                };
                let inputs = &whole[..whole.len() - 1];
                match runs[first_run..].iter_mut().find(|run| run.inputs == inputs) {
                    Some(run) => run.continuations.push(continuation),
                    None => runs.push(Run {
                        inputs: inputs.to_vec(),
                        line: item.line,
                        continuations: vec![continuation],
                        num_run: 0,
                    }),
                }
            }
            scores.push(ItemScore {
                line: item.line,
                options,
                gold: item.gold,
            });
        }
        Ok((runs, scores))
    }

    /// Tokens of context and continuation, the index of the first scored one, and how many were cut on the left.
    fn encode(
        &self,
        line: usize,
        (context, continuation): &(String, String),
    ) -> Result<(Vec<u32>, usize, usize), EvaluateError> {
        let kept = context.trim_end_matches(is_python_whitespace);
        let whole_text = format!("{context} {continuation}");
        let mut whole = self.tokenizer.encode(&whole_text, true)?;
        let mut start = self.tokenizer.encode(kept, true)?.len();
        if start == 0 {
            // Nothing before the first token: condition it on the token a text begins with.
            whole.insert(0, self.first_token(line)?);
            start = 1;
        }
        // A tokenizer may join the end of the context with the continuation: at least the last token is scored.
        start = start.min(whole.len().saturating_sub(1));
        let cut = whole.len().saturating_sub(self.context + 1);
        if start <= cut {
            return Err(self.line_error(
                line,
                format!("a continuation of at most {} tokens (the context)", self.context),
                format!("{} tokens", whole.len() - start),
            ));
        }
        whole.drain(..cut);
        Ok((whole, start - cut, cut))
    }

    fn first_token(&self, line: usize) -> Result<u32, EvaluateError> {
        let config = self.session.model().config();
        let token = self
            .tokenizer
            .bos_id()
            .or(config.bos_token)
            .or(config.eos_tokens.first().copied());
        token.ok_or_else(|| {
            self.line_error(
                line,
                "a context (this model has no first token)".into(),
                "none".into(),
            )
        })
    }

    fn line_error(&self, line: usize, expected: String, got: String) -> EvaluateError {
        EvaluateError::Line {
            path: self.path.to_owned(),
            line,
            expected,
            got,
        }
    }

    /// Runs the next tokens of a group in one step and says what lies where; empty when the group is done.
    fn run_step(&mut self, runs: &mut [Run], group: &[usize]) -> Result<Vec<Part>, EvaluateError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut batch: Vec<(usize, &[u32])> = Vec::new();
        let step_tokens = self.session.limits().step_tokens;
        let mut num_rows = 0;
        for (sequence, &run_idx) in group.iter().enumerate() {
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
            let first = runs[part.run_idx]
                .continuations
                .iter()
                .map(|c| c.start - 1)
                .min()
                .unwrap_or(usize::MAX);
            let (positions, first_row) = (part.positions.clone(), part.first_row);
            let run_idx = part.run_idx;
            let from = first.max(positions.start);
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
            score.loglikelihood += checked(row[target as usize], place)?;
            score.greedy &= likeliest == target as usize;
        }
    }
    Ok(())
}

/// Groups of runs that fit a step together, at most one for each sequence; a run longer than a step is alone.
fn pack(runs: &[Run]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for (idx, run) in runs.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if run.inputs.len() <= room && group.len() < NUM_SEQUENCES => {
                group.push(idx);
                room -= run.inputs.len();
            }
            _ => {
                groups.push(vec![idx]);
                room = STEP_TOKENS.saturating_sub(run.inputs.len());
            }
        }
    }
    groups
}

/// What Python's `str.rstrip` strips: Unicode whitespace and four separators.
fn is_python_whitespace(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
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

    fn is_greedy(&self) -> bool {
        self.options.iter().all(|option| option.greedy)
    }
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
