//! Log-probabilities as OpenAI writes them.

use std::sync::Arc;

use dualgrain::Logprobs;
use dualgrain::engine::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// What stands for minus infinity, which JSON does not have.
const NEVER: f32 = -9999.0;
const REPLACEMENT: char = '\u{fffd}';

/// The text of a token as it stands within a text; part of a character becomes U+FFFD.
fn token_text(tokenizer: &Tokenizer, token: u32) -> String {
    let decode = |tokens: &[u32]| tokenizer.decode(tokens, false).unwrap_or_default();
    let alone = decode(&[token]);
    // Some decoders drop the space before the first token: a second one shows it.
    let twice = decode(&[token, token]);
    match twice.strip_prefix(&alone) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => alone,
    }
}

/// `logprobs.content` of a chat's choice: an entry for a token.
pub fn chat_entry(tokenizer: &Tokenizer, token: u32, logprobs: &Logprobs) -> Value {
    let mut entry = spelled(tokenizer, token, logprobs.chosen);
    let top = logprobs.top.iter();
    let top: Vec<Value> = top
        .map(|&(token, logprob)| spelled(tokenizer, token, logprob))
        .collect();
    entry["top_logprobs"] = top.into();
    entry
}

fn spelled(tokenizer: &Tokenizer, token: u32, logprob: f32) -> Value {
    let text = token_text(tokenizer, token);
    // The bytes of half a character are not known here.
    let bytes = (!text.contains(REPLACEMENT)).then(|| text.as_bytes().to_vec());
    json!({"token": text, "logprob": finite(logprob), "bytes": bytes})
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

/// `logprobs` of a completion's choice, token by token.
pub struct CompletionLogprobs {
    tokenizer: Arc<Tokenizer>,
    /// Characters of the tokens so far.
    offset: usize,
}

impl CompletionLogprobs {
    /// For a choice of which no token has come.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, offset: 0 }
    }

    /// The lists for tokens that follow those before.
    pub fn value<'a>(&mut self, tokens: impl Iterator<Item = (u32, &'a Logprobs)>) -> Value {
        let (mut texts, mut chosen) = (Vec::new(), Vec::new());
        let (mut tops, mut offsets) = (Vec::new(), Vec::new());
        for (token, logprobs) in tokens {
            let text = token_text(&self.tokenizer, token);
            offsets.push(self.offset);
            self.offset += text.chars().count();
            texts.push(text);
            chosen.push(finite(logprobs.chosen));
            tops.push(self.top(logprobs));
        }
        json!({"tokens": texts, "token_logprobs": chosen, "top_logprobs": tops, "text_offset": offsets})
    }

    fn top(&self, logprobs: &Logprobs) -> Value {
        let mut top = Map::new();
        for &(token, logprob) in &logprobs.top {
            // Several tokens may look alike; the most likely one comes first.
            let text = token_text(&self.tokenizer, token);
            top.entry(text).or_insert_with(|| json!(finite(logprob)));
        }
        top.into()
    }
}
