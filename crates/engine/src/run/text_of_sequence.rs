//! The text of one sequence: from its tokens to the pieces that a reader gets.

use std::sync::Arc;

use super::request::Generation;
use super::scheduler::FinishReason;
use crate::text::StopMatcher;
use crate::text::detokenizer::DecodeStream;
use crate::text::tokenizer::{Tokenizer, TokenizerError};

/// Tokens in, text out, ended by stop strings.
#[derive(Debug)]
pub(super) struct TextOfSequence {
    tokenizer: Arc<Tokenizer>,
    stream: Option<DecodeStream>,
    stop: StopMatcher,
    /// Tokens so far.
    tokens: Vec<u32>,
    /// Text given out so far.
    text: String,
}

impl TextOfSequence {
    /// The text that follows `prompt`.
    pub fn new(
        tokenizer: &Arc<Tokenizer>,
        prompt: &[u32],
        stop: Vec<String>,
    ) -> Result<Self, TokenizerError> {
        let mut stream = DecodeStream::new(Arc::clone(tokenizer), true);
        stream.follow(prompt)?;
        Ok(Self {
            tokenizer: Arc::clone(tokenizer),
            stream: Some(stream),
            stop: StopMatcher::new(stop),
            tokens: Vec::new(),
            text: String::new(),
        })
    }

    /// Takes a token; returns the text that is certain now, and whether a stop string ended it.
    pub fn push(&mut self, token: u32) -> Result<(String, bool), TokenizerError> {
        self.tokens.push(token);
        let piece = match &mut self.stream {
            Some(stream) => stream.push(token)?,
            None => String::new(),
        };
        let mut stopped = self.stop.push(&piece);
        if let Some(written) = self.tokenizer.special_text(token).filter(|_| !stopped) {
            stopped = self.stop.push_hidden(&written);
        }
        Ok((self.give_out(), stopped))
    }

    /// Gives out what was held back; returns whether a stop string ended it after all.
    pub fn finish(&mut self) -> Result<(String, bool), TokenizerError> {
        let rest = self.stream.take().map(DecodeStream::finish).transpose()?;
        let stopped = self.stop.push(&rest.unwrap_or_default());
        if !stopped {
            self.stop.release();
        }
        Ok((self.give_out(), stopped))
    }

    /// What came of the sequence.
    pub fn into_generation(self, finish_reason: FinishReason) -> Generation {
        Generation {
            tokens: self.tokens,
            text: self.text,
            finish_reason,
        }
    }

    fn give_out(&mut self) -> String {
        let ready = self.stop.take_ready();
        self.text.push_str(&ready);
        ready
    }
}
