//! Texts in windows of equal length.

use std::path::Path;

use super::error::EvaluateError;
use super::text_file::read_text;
use crate::text::tokenizer::Tokenizer;

/// Tokens of a window unless asked otherwise (or the model's positions, if fewer).
pub const DEFAULT_CONTEXT: usize = 1024;

/// A text cut into windows that do not overlap; the rest of the text is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    tokens: Vec<u32>,
    context: usize,
}

impl Windows {
    /// Reads `path` and encodes it as one text, with the special tokens the tokenizer puts around it. `limit` keeps
    /// the first windows only.
    ///
    /// # Errors
    /// A file that is unreadable, not UTF-8, or shorter than a window; a context below 2; a limit of 0.
    pub fn from_file(
        tokenizer: &Tokenizer,
        path: &Path,
        context: usize,
        limit: Option<usize>,
    ) -> Result<Self, EvaluateError> {
        let text = read_text(path)?;
        Self::from_text(tokenizer, &path.display().to_string(), &text, context, limit)
    }

    /// As [`Self::from_file`] for a text in memory; `name` is for messages.
    ///
    /// # Errors
    /// A text shorter than a window; a context below 2; a limit of 0.
    pub fn from_text(
        tokenizer: &Tokenizer,
        name: &str,
        text: &str,
        context: usize,
        limit: Option<usize>,
    ) -> Result<Self, EvaluateError> {
        Self::from_tokens(name, tokenizer.encode(text, true)?, context, limit)
    }

    /// As [`Self::from_text`] for an encoded text.
    ///
    /// # Errors
    /// As [`Self::from_text`].
    pub fn from_tokens(
        name: &str,
        mut tokens: Vec<u32>,
        context: usize,
        limit: Option<usize>,
    ) -> Result<Self, EvaluateError> {
        check_context(context, usize::MAX)?;
        if limit == Some(0) {
            return Err(EvaluateError::Nothing { what: "windows" });
        }
        let num_windows = (tokens.len() / context).min(limit.unwrap_or(usize::MAX));
        if num_windows == 0 {
            return Err(EvaluateError::TextTooShort {
                name: name.to_owned(),
                num_tokens: tokens.len(),
                context,
            });
        }
        tokens.truncate(num_windows * context);
        Ok(Self { tokens, context })
    }

    /// The first `count` windows (at least one).
    pub fn first(&self, count: usize) -> Self {
        let tokens = &self.tokens[..self.context * count.clamp(1, self.len())];
        Self {
            tokens: tokens.to_vec(),
            context: self.context,
        }
    }

    /// Number of windows, at least 1.
    pub fn len(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// Never: there is at least one window.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Tokens of a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The windows, `context` tokens each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.tokens.chunks_exact(self.context)
    }
}

/// Refuses a window that predicts nothing or that the model has no positions for.
pub(super) fn check_context(context: usize, max_positions: usize) -> Result<(), EvaluateError> {
    match (2..=max_positions).contains(&context) {
        true => Ok(()),
        false => Err(EvaluateError::Context {
            got: context,
            max_positions,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_drop_the_rest() {
        let windows = Windows::from_tokens("text", (0..10).collect(), 4, None).unwrap();
        assert_eq!(windows.iter().collect::<Vec<_>>(), [[0, 1, 2, 3], [4, 5, 6, 7]]);
        let first = Windows::from_tokens("text", (0..10).collect(), 4, Some(1)).unwrap();
        assert_eq!((first.len(), first.context()), (1, 4));
        assert_eq!(
            Windows::from_tokens("text", (0..8).collect(), 4, Some(99))
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn texts_without_a_window_are_errors_with_both_numbers() {
        let message = |context, limit| {
            Windows::from_tokens("short.txt", vec![0; 3], context, limit)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(4, None),
            "short.txt: expected at least one window of 4 tokens, got 3 tokens"
        );
        assert!(message(1, None).contains("expected 2 to"));
        assert!(message(2, Some(0)).contains("windows: expected at least 1, got 0"));
    }
}
