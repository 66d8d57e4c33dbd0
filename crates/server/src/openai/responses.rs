//! POST /v1/responses, without state: nothing is stored, and nothing that was stored can be gone on with.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use dualgrain::FinishReason;
use dualgrain::engine::chat::Message;
use serde_json::{Value, json};

use crate::app::{App, Submitted};
use crate::error::{ApiError, json_response};
use crate::parameters::{Api, Choices, Fields, Wanted};
use crate::prompt::{MessageRules, read_messages};
use crate::running::End;
use crate::served::now_s;
use crate::streaming::{Answer, EventWriter, Piece, event, stream_response, whole};

/// What a request asks for.
struct Asked {
    messages: Vec<Message>,
    wanted: Wanted,
    stream: bool,
    echo: Echo,
}

/// What an answer repeats of its request.
struct Echo {
    instructions: Option<String>,
    metadata: Value,
}

/// Answers a conversation.
pub async fn responses(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    super::respond(answer(app, request).await)
}

async fn answer(app: Arc<App>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (fields, turn) = app.bodies.read(request).await?;
    let Asked {
        messages,
        wanted,
        stream,
        echo,
    } = Asked::read(fields, &app)?;
    let choices = Choices {
        n: 1,
        stream,
        include_usage: true,
    };
    let submitted = app.submit_chat(turn, messages, (&wanted, choices)).await?;
    let shape = Shape::new(&app, &submitted, wanted, echo);
    match stream {
        true => Ok(stream_response(submitted, shape)),
        false => complete(submitted, shape).await,
    }
}

impl Asked {
    fn read(mut fields: Fields, app: &App) -> Result<Self, ApiError> {
        app.check_model(fields.text("model")?.as_deref())?;
        let messages = take_input(&mut fields, app)?;
        let asked = Self {
            echo: Echo {
                instructions: fields.text("instructions")?,
                metadata: fields.value("metadata").unwrap_or_else(|| json!({})),
            },
            wanted: Wanted::take_basic(&mut fields, "max_output_tokens")?,
            stream: fields.flag("stream")?,
            messages,
        };
        fields.finish_request(Api::Responses, app.options.ignore_unknown)?;
        Ok(asked.with_instructions())
    }

    /// Instructions are the system's first message.
    fn with_instructions(mut self) -> Self {
        if let Some(content) = self.echo.instructions.clone() {
            let role = "system".to_owned();
            self.messages.insert(0, Message { role, content });
        }
        self
    }
}

/// Takes `input`: a text, or a list of messages.
fn take_input(fields: &mut Fields, app: &App) -> Result<Vec<Message>, ApiError> {
    let rules = MessageRules {
        roles: &["system", "developer", "user", "assistant"],
        message_fields: &["id", "status"],
        part_types: &["input_text", "output_text"],
        part_fields: &["annotations", "logprobs"],
        ignore_unknown: app.options.ignore_unknown,
    };
    match fields.required("input")? {
        Value::String(content) => {
            let role = "user".to_owned();
            Ok(vec![Message { role, content }])
        }
        list => read_messages(&fields.name("input"), list, rules),
    }
}

async fn complete(submitted: Submitted, mut shape: Shape) -> Result<Response<Body>, ApiError> {
    let mut answers = whole(submitted).await?;
    let Some(Answer { text, end, .. }) = answers.pop() else {
        return Err(ApiError::internal("the answer is missing"));
    };
    shape.text = text;
    shape.last = Some(end);
    Ok(json_response(&shape.response()))
}

/// How an answer is written, whole or as events.
struct Shape {
    id: String,
    item_id: String,
    created_s: u64,
    model: String,
    wanted: Wanted,
    echo: Echo,
    prompt_tokens: usize,
    /// Events so far.
    sequence: u64,
    text: String,
    last: Option<End>,
}

impl Shape {
    fn new(app: &App, submitted: &Submitted, wanted: Wanted, echo: Echo) -> Self {
        Self {
            id: app.next_id("resp"),
            item_id: app.next_id("msg"),
            created_s: now_s(),
            model: app.model.alias.clone(),
            wanted,
            echo,
            prompt_tokens: submitted.prompt_tokens,
            sequence: 0,
            text: String::new(),
            last: None,
        }
    }

    /// The answer as far as it has come.
    fn response(&self) -> Value {
        let output = match &self.last {
            Some(_) => json!([self.item()]),
            None => json!([]),
        };
        let cut = self.is_cut();
        json!({
            "id": self.id, "object": "response", "created_at": self.created_s, "status": self.status(),
            "error": null, "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": self.echo.instructions, "max_output_tokens": self.wanted.max_tokens,
            "model": self.model, "output": output, "parallel_tool_calls": false, "previous_response_id": null,
            "store": false, "temperature": self.wanted.sampling.temperature, "text": {"format": {"type": "text"}},
            "tool_choice": "none", "tools": [], "top_p": self.wanted.sampling.top_p, "truncation": "disabled",
            "usage": self.last.as_ref().map(|end| self.usage(end)), "metadata": self.echo.metadata
        })
    }

    fn is_cut(&self) -> bool {
        let reason = self.last.as_ref().map(|end| end.reason);
        matches!(reason, Some(FinishReason::MaxTokens | FinishReason::Context))
    }

    fn status(&self) -> &'static str {
        match &self.last {
            None => "in_progress",
            Some(_) if self.is_cut() => "incomplete",
            Some(_) => "completed",
        }
    }

    /// The message that the answer consists of.
    fn item(&self) -> Value {
        let content = match &self.last {
            Some(_) => json!([self.part()]),
            None => json!([]),
        };
        json!({
            "id": self.item_id, "type": "message", "status": self.status(), "role": "assistant", "content": content
        })
    }

    fn part(&self) -> Value {
        json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": []})
    }

    fn usage(&self, end: &End) -> Value {
        let output_tokens = end.tokens.len();
        json!({
            "input_tokens": self.prompt_tokens, "input_tokens_details": {"cached_tokens": end.cached_tokens},
            "output_tokens": output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + output_tokens
        })
    }

    /// An event with its number.
    fn event(&mut self, name: &str, mut data: Value) -> String {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        event(Some(name), &data)
    }

    /// An event about the text, whose place in the answer is always the same.
    fn text_event(&mut self, name: &str, mut data: Value) -> String {
        data["item_id"] = self.item_id.clone().into();
        data["output_index"] = 0.into();
        data["content_index"] = 0.into();
        self.event(name, data)
    }

    fn delta(&mut self, text: &str) -> String {
        self.text += text;
        self.text_event(
            "response.output_text.delta",
            json!({"delta": text, "logprobs": []}),
        )
    }
}

impl EventWriter for Shape {
    fn begin(&mut self) -> String {
        let response = json!({"response": self.response()});
        let item = json!({"output_index": 0, "item": self.item()});
        let part = json!({"part": self.part()});
        self.event("response.created", response.clone())
            + &self.event("response.in_progress", response)
            + &self.event("response.output_item.added", item)
            + &self.text_event("response.content_part.added", part)
    }

    fn token(&mut self, _: usize, piece: Piece) -> String {
        self.delta(&piece.text)
    }

    fn finish(&mut self, _: usize, rest: String, end: End) -> String {
        let delta = match rest.is_empty() {
            true => String::new(),
            false => self.delta(&rest),
        };
        self.last = Some(end);
        delta
    }

    fn end(&mut self) -> String {
        let text = json!({"text": self.text, "logprobs": []});
        let part = json!({"part": self.part()});
        let item = json!({"output_index": 0, "item": self.item()});
        let response = json!({"response": self.response()});
        let last = match self.is_cut() {
            true => "response.incomplete",
            false => "response.completed",
        };
        self.text_event("response.output_text.done", text)
            + &self.text_event("response.content_part.done", part)
            + &self.event("response.output_item.done", item)
            + &self.event(last, response)
    }

    fn fail(&mut self, error: &ApiError) -> String {
        let data = json!({"code": error.code, "message": error.message, "param": error.param});
        self.event("error", data)
    }
}
