//! Streams of events as OpenAI's interfaces write them, read with little work: of an event only what is counted.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::de::{Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What a stream has said so far.
#[derive(Debug, Default)]
pub struct Events {
    /// Bytes of a line whose end has not come.
    rest: Vec<u8>,
    /// Tokens, as the server counts them.
    pub usage: Option<Usage>,
    /// Whether the answer has come to its end.
    pub ended: bool,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    #[serde(default)]
    pub prompt_tokens: usize,
    /// Of the answer.
    #[serde(default)]
    pub completion_tokens: usize,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
    /// Energy that the request took, where the server tells it; this project's calls it `energy_j`.
    #[serde(default, alias = "energy_joules")]
    pub energy_j: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<usize>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<Text>,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<Text>,
    #[serde(default)]
    reasoning_content: Option<Text>,
}

/// Whether a text has characters.
struct Text(bool);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(!text.is_empty()))
    }
}

impl Usage {
    /// Of a server that does not count: an event with text is a token.
    pub fn of_events(completion_tokens: usize) -> Self {
        Self {
            completion_tokens,
            ..Self::default()
        }
    }

    /// Tokens of the prompt that were in the cache.
    pub fn cached_tokens(&self) -> usize {
        let details = self.prompt_tokens_details.unwrap_or_default();
        details.cached_tokens.unwrap_or(0)
    }
}

impl Choice {
    fn has_text(&self) -> bool {
        let delta = self.delta.iter();
        let delta = delta.flat_map(|delta| [&delta.content, &delta.reasoning_content]);
        let mut texts = delta.chain([&self.text]).flatten();
        texts.any(|text| text.0)
    }
}

impl Events {
    /// Takes bytes of the stream; how many of the events that they completed have text.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut with_text = 0;
        let mut left = bytes;
        while let Some(end) = left.iter().position(|&byte| byte == b'\n') {
            let (line, after) = (&left[..end], &left[end + 1..]);
            if self.rest.is_empty() {
                with_text += usize::from(self.line(line)?);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                with_text += usize::from(self.line(&whole)?);
            }
            left = after;
        }
        self.rest.extend_from_slice(left);
        Ok(with_text)
    }

    /// Whether a line is an event that has text.
    fn line(&mut self, line: &[u8]) -> Result<bool> {
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(false);
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.ended = true;
            return Ok(false);
        }
        let chunk: Chunk = serde_json::from_slice(data)
            .with_context(|| format!("an event that is not of OpenAI's kind: {}", shown(data)))?;
        if let Some(error) = chunk.error {
            bail!("{}", message(&error));
        }
        self.usage = chunk.usage.or(self.usage);
        self.ended |= chunk.choices.iter().any(|choice| choice.finish_reason.is_some());
        Ok(chunk.choices.iter().any(Choice::has_text))
    }
}

/// What an error says, whatever its shape.
pub fn message(error: &Value) -> String {
    let inner = error.get("error").unwrap_or(error);
    let text = inner.get("message").unwrap_or(inner);
    text.as_str().map_or_else(|| text.to_string(), str::to_owned)
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        ": waiting\n\n",
        "data: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}, \"finish_reason\": null}]}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\u00e9\"}}],\"other\":[1]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":null,\"reasoning_content\":\"x\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"text\":\"y\",\"finish_reason\":\"length\"}]}\n\n",
        "data:{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":4},\"energy_joules\":1.5}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn streams_are_read_alike_however_they_are_cut() {
        for size in [1, 7, 50, STREAM.len()] {
            let mut events = Events::default();
            let pieces = STREAM.as_bytes().chunks(size);
            let with_text: usize = pieces.map(|piece| events.take(piece).unwrap()).sum();
            let usage = events.usage.unwrap();
            assert_eq!((with_text, events.ended), (3, true));
            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 3));
            assert_eq!((usage.cached_tokens(), usage.energy_j), (4, Some(1.5)));
        }
    }

    #[test]
    fn joules_are_read_by_the_name_that_serve_gives_them() {
        let usage: Usage = serde_json::from_str(r#"{"energy_j": 1.5}"#).unwrap();
        assert_eq!(usage.energy_j, Some(1.5));
    }

    #[test]
    fn errors_in_streams_are_told_and_so_is_what_no_server_should_send() {
        let said = |line: &str| Events::default().take(line.as_bytes()).unwrap_err().to_string();
        assert_eq!(said("data: {\"error\":{\"message\":\"no room\"}}\n"), "no room");
        assert_eq!(said("data: {\"error\":\"gone\"}\n"), "gone");
        assert!(said("data: {\n").contains("not of OpenAI's kind"));
    }
}
