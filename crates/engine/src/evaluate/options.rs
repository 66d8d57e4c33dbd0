//! Options of task items as tokens to run and tokens to score.
//!
//! The conventions are those of lm-evaluation-harness. An option is a context and a continuation, joined by a space;
//! whitespace at the end of the context moves to the continuation. `whole = encode(context + continuation)`, both with
//! special tokens; the first `len(encode(context))` tokens are context, the rest is scored. What does not fit the model's
//! context is cut off on the left.

use super::error::EvaluateError;
use super::item_score::{ItemScore, OptionScore};
use super::task_file::{Task, TaskItem};
use crate::ModelConfig;
use crate::text::tokenizer::Tokenizer;

/// Tokens to run once, and the continuations to score on them: options that differ in their last token only (the
/// letters of MMLU) share their run.
pub(super) struct Run {
    /// Tokens to run, at least one.
    pub inputs: Vec<u32>,
    /// Line of the item.
    pub line: usize,
    /// At least one.
    pub continuations: Vec<Continuation>,
}

/// What is scored of one option.
pub(super) struct Continuation {
    /// Item and option this is.
    pub place: (usize, usize),
    /// Position of the first scored token; its log-probability is in the row before.
    pub start: usize,
    /// The scored tokens.
    pub targets: Vec<u32>,
}

impl Run {
    /// Index of its item.
    pub fn item(&self) -> usize {
        self.continuations
            .first()
            .map_or(0, |continuation| continuation.place.0)
    }

    /// The first position whose row is scored.
    pub fn first_scored(&self) -> usize {
        let starts = self
            .continuations
            .iter()
            .map(|continuation| continuation.start - 1);
        starts.min().unwrap_or(self.inputs.len())
    }
}

/// All runs of a task in the order of its items, and its scores before any run.
pub(super) fn encode_task(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    task: &Task,
    context: usize,
) -> Result<(Vec<Run>, Vec<ItemScore>), EvaluateError> {
    let encoder = Encoder {
        config,
        tokenizer,
        task,
        context,
    };
    let mut runs = Vec::new();
    let scores = task
        .items()
        .iter()
        .enumerate()
        .map(|(idx, item)| encoder.add_item(idx, item, &mut runs));
    let scores = scores.collect::<Result<_, _>>()?;
    Ok((runs, scores))
}

struct Encoder<'a> {
    config: &'a ModelConfig,
    tokenizer: &'a Tokenizer,
    task: &'a Task,
    context: usize,
}

/// An option as tokens.
struct Encoded {
    whole: Vec<u32>,
    /// Index of the first scored token, at least 1.
    start: usize,
    /// Tokens cut off on the left.
    cut_tokens: usize,
}

impl Encoder<'_> {
    fn add_item(
        &self,
        item_idx: usize,
        item: &TaskItem,
        runs: &mut Vec<Run>,
    ) -> Result<ItemScore, EvaluateError> {
        let first_run = runs.len();
        let mut options = Vec::with_capacity(item.options.len());
        for (option_idx, option) in item.options.iter().enumerate() {
            let Encoded {
                mut whole,
                start,
                cut_tokens,
            } = self.encode(item.line, option)?;
            let targets = whole[start..].to_vec();
            whole.pop(); // nothing is scored after the last token
            options.push(OptionScore {
                loglikelihood: 0.0,
                tokens: targets.len(),
                greedy: true,
                bytes: option.1.len(),
                cut_tokens,
            });
            let continuation = Continuation {
                place: (item_idx, option_idx),
                start,
                targets,
            };
            match runs[first_run..].iter_mut().find(|run| run.inputs == whole) {
                Some(run) => run.continuations.push(continuation),
                None => runs.push(Run {
                    inputs: whole,
                    line: item.line,
                    continuations: vec![continuation],
                }),
            }
        }
        Ok(ItemScore {
            line: item.line,
            options,
            gold: item.gold,
        })
    }

    fn encode(
        &self,
        line: usize,
        (context, continuation): &(String, String),
    ) -> Result<Encoded, EvaluateError> {
        let kept = context.trim_end_matches(is_python_whitespace);
        let mut whole = self
            .tokenizer
            .encode(&format!("{context} {continuation}"), true)?;
        let mut start = self.tokenizer.encode(kept, true)?.len();
        if start == 0 {
            // Nothing before the first token: condition it on the token a text begins with.
            whole.insert(0, self.first_token(line)?);
            start = 1;
        }
        // A tokenizer may join the end of the context with the continuation: at least the last token is scored.
        start = start.min(whole.len().saturating_sub(1));
        let cut_tokens = whole.len().saturating_sub(self.context + 1);
        if start <= cut_tokens {
            let expected = format!("a context and a continuation of 1 to {} tokens", self.context);
            return Err(self.line_error(line, expected, format!("{} tokens", whole.len() - start)));
        }
        whole.drain(..cut_tokens);
        Ok(Encoded {
            whole,
            start: start - cut_tokens,
            cut_tokens,
        })
    }

    fn first_token(&self, line: usize) -> Result<u32, EvaluateError> {
        let config = self.config;
        let token = self
            .tokenizer
            .bos_id()
            .or(config.bos_token)
            .or(config.eos_tokens.first().copied());
        let expected = "a context (this model names no token to begin with)";
        token.ok_or_else(|| self.line_error(line, expected.to_owned(), "an empty one".to_owned()))
    }

    fn line_error(&self, line: usize, expected: String, got: String) -> EvaluateError {
        EvaluateError::Line {
            path: self.task.path().to_owned(),
            line,
            expected,
            got,
        }
    }
}

/// What Python's `str.rstrip` strips: Unicode whitespace and four separators.
fn is_python_whitespace(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_is_what_python_strips() {
        let kept = |text: &'static str| text.trim_end_matches(is_python_whitespace);
        assert_eq!(kept("a \n\t\u{a0}\u{85}\u{2003}\u{1c}\u{1f}"), "a");
        assert_eq!(kept("a\u{200b}"), "a\u{200b}");
    }
}
