//! POST /v1/responses, without state: nothing is stored, and nothing that was stored can be gone on with.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use dualgrain::FinishReason;
use serde_json::{Value, json};

use super::input::take_input;
use super::items::{Items, Named};
use crate::answers::{Choice, Form, Message, Rules, Tool, Tools};
use crate::app::{App, Submitted};
use crate::energy::rounded;
use crate::error::{ApiError, json_response};
use crate::parameters::{Api, Bounds, Choices, Fields, Wanted, take_metadata};
use crate::running::End;
use crate::served::now_s;
use crate::streaming::{Answer, EventWriter, Piece, event, stream_response, whole};

/// What a request asks for.
struct Asked {
    messages: Vec<Message>,
    wanted: Wanted,
    stream: bool,
    echo: Echo,
    rules: Rules,
}

/// What an answer repeats of its request.
struct Echo {
    instructions: Option<String>,
    metadata: Value,
    /// Notes of the client that change nothing.
    safety_identifier: Value,
    prompt_cache_key: Value,
    /// The form of the answer, the tools, and how they were chosen.
    text: Value,
    tools: Vec<Value>,
    tool_choice: Value,
    parallel: bool,
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
        rules,
    } = Asked::read(fields, &app)?;
    let choices = Choices {
        n: 1,
        stream,
        include_usage: true,
    };
    let submitted = app
        .submit_chat(turn, (messages, rules), (&wanted, choices))
        .await?;
    let shape = Shape::new(&app, &submitted, wanted, echo);
    match stream {
        true => Ok(stream_response(submitted, shape)),
        false => complete(submitted, shape).await,
    }
}

impl Asked {
    fn read(mut fields: Fields, app: &App) -> Result<Self, ApiError> {
        app.check_model(fields.text("model")?.as_deref())?;
        let ignore_unknown = app.options.ignore_unknown;
        let messages = take_input(&mut fields, ignore_unknown)?;
        let rules = Rules {
            form: Form::take_text(&mut fields, ignore_unknown)?,
            tools: Tools::take_responses(&mut fields, ignore_unknown)?,
        };
        let asked = Self {
            echo: Echo {
                instructions: fields.text("instructions")?,
                metadata: take_metadata(&mut fields)?,
                safety_identifier: fields.value("safety_identifier").unwrap_or_default(),
                prompt_cache_key: fields.value("prompt_cache_key").unwrap_or_default(),
                text: json!({"format": rules.form.said()}),
                tools: rules.tools.list.iter().map(described).collect(),
                tool_choice: chosen(&rules.tools),
                parallel: rules.tools.parallel,
            },
            wanted: take_wanted(&mut fields, app.model.bounds)?,
            stream: fields.flag("stream")?,
            messages,
            rules,
        };
        fields.finish_request(Api::Responses, app.options.ignore_unknown)?;
        Ok(asked.with_instructions())
    }

    /// Instructions are the system's first message.
    fn with_instructions(mut self) -> Self {
        if let Some(content) = self.echo.instructions.clone() {
            self.messages.insert(0, Message::new("system", content));
        }
        self
    }
}

fn take_wanted(fields: &mut Fields, bounds: Bounds) -> Result<Wanted, ApiError> {
    let mut wanted = Wanted::take_basic(fields, "max_output_tokens", bounds)?;
    wanted.take_penalties(fields)?;
    Ok(wanted)
}

/// A tool as responses write it.
fn described(tool: &Tool) -> Value {
    json!({
        "type": "function", "name": tool.name, "description": tool.description,
        "parameters": tool.said_parameters, "strict": true
    })
}

fn chosen(tools: &Tools) -> Value {
    match &tools.choice {
        Choice::None => "none".into(),
        // Without tools none is called.
        Choice::Auto if tools.list.is_empty() => "none".into(),
        Choice::Auto => "auto".into(),
        Choice::Required => "required".into(),
        Choice::Named(name) => json!({"type": "function", "name": name}),
    }
}

async fn complete(submitted: Submitted, mut shape: Shape) -> Result<Response<Body>, ApiError> {
    let mut answers = whole(submitted).await?;
    let Some(Answer { text, end, .. }) = answers.pop() else {
        return Err(ApiError::internal("the answer is missing"));
    };
    shape.end_with(end);
    let status = shape.status();
    shape.items.finish(&text, status);
    Ok(json_response(&shape.response()))
}

/// How an answer is written, whole or as events.
struct Shape {
    id: String,
    created_s: u64,
    /// When the whole answer was there.
    completed_s: Option<u64>,
    model: String,
    wanted: Wanted,
    echo: Echo,
    prompt_tokens: usize,
    /// Events so far.
    sequence: u64,
    items: Items,
    last: Option<End>,
}

impl Shape {
    fn new(app: &App, submitted: &Submitted, wanted: Wanted, echo: Echo) -> Self {
        Self {
            id: format!("resp_{}", submitted.name),
            created_s: now_s(),
            completed_s: None,
            model: app.model.alias.clone(),
            wanted,
            echo,
            prompt_tokens: submitted.prompt_tokens,
            sequence: 0,
            items: Items::new(submitted.splitter.clone(), submitted.name.clone()),
            last: None,
        }
    }

    /// The answer as far as it has come.
    fn response(&self) -> Value {
        let cut = self.is_cut();
        json!({
            "id": self.id, "object": "response", "created_at": self.created_s, "completed_at": self.completed_s,
            "status": self.status(), "background": false, "service_tier": "default",
            "error": null, "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": self.echo.instructions, "max_output_tokens": self.wanted.max_tokens,
            "model": self.model, "output": self.items.done(), "parallel_tool_calls": self.echo.parallel, "previous_response_id": null,
            "store": false, "temperature": self.wanted.sampling.temperature, "text": self.echo.text,
            "presence_penalty": self.wanted.sampling.presence_penalty, "frequency_penalty": self.wanted.sampling.frequency_penalty,
            "top_logprobs": 0, "max_tool_calls": null, "reasoning": null,
            "safety_identifier": self.echo.safety_identifier, "prompt_cache_key": self.echo.prompt_cache_key,
            "tool_choice": self.echo.tool_choice, "tools": self.echo.tools, "top_p": self.wanted.sampling.top_p, "truncation": "disabled",
            "usage": self.last.as_ref().map(|end| self.usage(end)), "metadata": self.echo.metadata
        })
    }

    fn end_with(&mut self, end: End) {
        self.last = Some(end);
        self.completed_s = (!self.is_cut()).then(now_s);
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

    fn usage(&self, end: &End) -> Value {
        let output_tokens = end.tokens.len();
        let mut usage = json!({
            "input_tokens": self.prompt_tokens, "input_tokens_details": {"cached_tokens": end.cached_tokens},
            "output_tokens": output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + output_tokens
        });
        if let Some(energy_j) = end.energy_j {
            usage["energy_j"] = rounded(energy_j).into();
        }
        usage
    }

    /// An event with its number.
    fn event(&mut self, name: &str, mut data: Value) -> String {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        event(Some(name), &data)
    }

    fn events(&mut self, named: Vec<Named>) -> String {
        let events = named.into_iter().map(|(name, data)| self.event(name, data));
        events.collect()
    }
}

impl EventWriter for Shape {
    fn begin(&mut self) -> String {
        let response = json!({"response": self.response()});
        self.event("response.created", response.clone()) + &self.event("response.in_progress", response)
    }

    fn token(&mut self, _: usize, piece: Piece) -> String {
        let events = self.items.push(&piece.text);
        self.events(events)
    }

    fn finish(&mut self, _: usize, rest: String, end: End) -> String {
        self.end_with(end);
        let status = self.status();
        let events = self.items.finish(&rest, status);
        self.events(events)
    }

    fn end(&mut self) -> String {
        let response = json!({"response": self.response()});
        let last = match self.is_cut() {
            true => "response.incomplete",
            false => "response.completed",
        };
        self.event(last, response)
    }

    fn fail(&mut self, error: &ApiError) -> String {
        let data = json!({"code": error.code, "message": error.message, "param": error.param});
        self.event("error", data)
    }
}
