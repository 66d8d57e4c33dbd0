//! What all answers of OpenAI's interface have around them.

use axum::body::Body;
use axum::http::Response;
use dualgrain::FinishReason;
use serde_json::{Value, json};

use crate::app::{App, Submitted};
use crate::energy::rounded;
use crate::error::{ApiError, json_response};
use crate::running::End;
use crate::served::now_s;
use crate::streaming::{Answer, event, whole};

/// What made an answer: answers of one seed are equal while it stays. `b` stands for build.
const FINGERPRINT: &str = concat!("b", env!("CARGO_PKG_VERSION"));

/// The end of a stream.
pub const DONE: &str = "data: [DONE]\n\n";

/// What every answer, or every chunk of one, begins with.
pub struct Envelope {
    id: String,
    object: &'static str,
    created_s: u64,
    model: String,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    cached_tokens: usize,
    energy_j: Option<f64>,
    /// Choices of each prompt.
    n: usize,
}

impl Envelope {
    /// For a new answer of this name.
    pub fn new(app: &App, (id_kind, name): (&str, &str), object: &'static str) -> Self {
        Self {
            id: format!("{id_kind}{name}"),
            object,
            created_s: now_s(),
            model: app.model.alias.clone(),
        }
    }

    /// An answer or a chunk of these choices.
    pub fn value(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": self.object, "created": self.created_s, "model": self.model, "choices": choices,
            "system_fingerprint": FINGERPRINT
        })
    }

    /// The event of a chunk; `usage` says that the last chunk will count tokens, so that this one says null.
    pub fn chunk(&self, choice: Value, usage: bool) -> String {
        let mut value = self.value(json!([choice]));
        if usage {
            value["usage"] = Value::Null;
        }
        event(None, &value)
    }

    /// The end of a stream, with the tokens counted where that was asked for.
    pub fn end(&self, usage: Option<&Usage>) -> String {
        let Some(usage) = usage else {
            return DONE.to_owned();
        };
        let mut value = self.value(json!([]));
        value["usage"] = usage.value();
        event(None, &value) + DONE
    }
}

impl Usage {
    /// Nothing generated yet.
    pub fn new(prompt_tokens: usize, n: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens: 0,
            cached_tokens: 0,
            energy_j: None,
            n,
        }
    }

    /// Counts a choice. The first choice of a prompt tells what of it was in the cache; the others share the first one's pages.
    pub fn add(&mut self, choice: usize, end: &End) {
        self.completion_tokens += end.tokens.len();
        if let Some(energy_j) = end.energy_j {
            self.energy_j = Some(self.energy_j.unwrap_or(0.0) + energy_j);
        }
        if choice.is_multiple_of(self.n) {
            self.cached_tokens += end.cached_tokens;
        }
    }

    /// As OpenAI writes it.
    pub fn value(&self) -> Value {
        let mut value = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens}
        });
        if let Some(energy_j) = self.energy_j {
            value["energy_j"] = rounded(energy_j).into();
        }
        value
    }
}

/// A whole answer, when all choices are done; `choice` writes one of them, by its index.
pub async fn complete(
    app: &App,
    (id_kind, object): (&str, &'static str),
    (submitted, n): (Submitted, usize),
    choice: impl Fn(usize, &Answer) -> Value,
) -> Result<Response<Body>, ApiError> {
    let mut usage = Usage::new(submitted.prompt_tokens, n);
    let name = submitted.name.clone();
    let answers = whole(submitted).await?;
    let mut list = Vec::with_capacity(answers.len());
    for (index, answer) in answers.iter().enumerate() {
        usage.add(index, &answer.end);
        list.push(choice(index, answer));
    }
    let mut value = Envelope::new(app, (id_kind, &name), object).value(list.into());
    value["usage"] = usage.value();
    Ok(json_response(&value))
}

/// OpenAI's word for the end of a choice, in which tools were called or not.
pub fn finish_reason(end: &End, has_calls: bool) -> &'static str {
    match end.reason {
        FinishReason::Eos if has_calls => "tool_calls",
        FinishReason::Eos | FinishReason::StopString | FinishReason::Cancelled => "stop",
        FinishReason::MaxTokens | FinishReason::Context => "length",
    }
}

/// The events of a stream that breaks off with an error.
pub fn fail(error: &ApiError) -> String {
    event(None, &error.openai()) + DONE
}
