//! POST /v1/messages and /v1/messages/count_tokens.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use dualgrain::FinishReason;
use dualgrain::engine::detokenizer::DecodeStream;
use dualgrain::engine::tokenizer::{Tokenizer, TokenizerError};
use serde::Serialize;
use serde_json::{Value, json};

use super::blocks::{Block, Blocks, event_of};
use super::conversation::take_conversation;
use crate::answers::{Form, Message, Rules, Tools};
use crate::app::{App, Submitted};
use crate::energy::rounded;
use crate::error::{ApiError, json_response, json_text};
use crate::parameters::ranges::{MAX_TOKENS, THINKING_TYPES};
use crate::parameters::{Api, Choices, Fields, Wanted, shown};
use crate::running::End;
use crate::streaming::{Answer, EventWriter, Piece, event, stream_response, whole};

/// What a request asks for.
struct Asked {
    messages: Vec<Message>,
    wanted: Wanted,
    choices: Choices,
    rules: Rules,
}

/// Answers a conversation.
pub async fn messages(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    respond(answer(app, request).await)
}

/// How many tokens the prompt of a conversation has.
pub async fn count_tokens(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    respond(count(app, request).await)
}

fn respond(answer: Result<Response<Body>, ApiError>) -> Response<Body> {
    answer.unwrap_or_else(|error| error.respond(&error.anthropic()))
}

async fn answer(app: Arc<App>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (fields, turn) = app.bodies.read(request).await?;
    let Asked {
        messages,
        wanted,
        choices,
        rules,
    } = Asked::read(fields, &app)?;
    let submitted = app
        .submit_chat(turn, (messages, rules), (&wanted, choices))
        .await?;
    let shape = Shape::new(&app, &submitted, wanted.stop);
    match choices.stream {
        true => Ok(stream_response(submitted, shape)),
        false => complete(submitted, shape).await,
    }
}

async fn count(app: Arc<App>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (mut fields, turn) = app.bodies.read(request).await?;
    let held = (turn, app.texts.take().await?);
    app.check_model(fields.text("model")?.as_deref())?;
    let ignore_unknown = app.options.ignore_unknown;
    let messages = take_conversation(&mut fields, ignore_unknown)?;
    let rules = Rules {
        form: Form::Text,
        tools: Tools::take_messages(&mut fields, ignore_unknown)?,
    };
    // Clients send the whole request that they would like to know the size of.
    fields.pass_over_used(Api::Messages);
    fields.finish_request(Api::Messages, app.options.ignore_unknown)?;
    let work = move |app: &App| app.counted_tokens(&messages, &rules);
    let tokens = app.blocking(held, work).await?;
    Ok(json_response(&json!({"input_tokens": tokens.len()})))
}

impl Asked {
    fn read(mut fields: Fields, app: &App) -> Result<Self, ApiError> {
        app.check_model(fields.text("model")?.as_deref())?;
        let ignore_unknown = app.options.ignore_unknown;
        let messages = take_conversation(&mut fields, ignore_unknown)?;
        let rules = Rules {
            form: Form::take_output_config(&mut fields, ignore_unknown)?,
            tools: Tools::take_messages(&mut fields, ignore_unknown)?,
        };
        let mut wanted = Wanted::take_basic(&mut fields, "max_tokens", app.model.bounds)?;
        wanted.take_stop(&mut fields, "stop_sequences")?;
        if wanted.max_tokens.is_none() {
            return Err(fields.error("max_tokens", "missing: this field is required"));
        }
        take_thinking(&mut fields, wanted.max_tokens, ignore_unknown)?;
        let choices = Choices {
            n: 1,
            stream: fields.flag("stream")?,
            include_usage: true,
        };
        fields.finish_request(Api::Messages, app.options.ignore_unknown)?;
        Ok(Self {
            messages,
            wanted,
            choices,
            rules,
        })
    }
}

/// Takes `thinking`, which says how much a model that thinks may think.
fn take_thinking(
    fields: &mut Fields,
    max_tokens: Option<usize>,
    ignore_unknown: bool,
) -> Result<(), ApiError> {
    let Some(mut thinking) = fields.inner("thinking")? else {
        return Ok(());
    };
    let kind = thinking.required("type")?;
    if !THINKING_TYPES.iter().any(|known| kind == *known) {
        let problem = format!(
            "expected one of {}, got {}",
            THINKING_TYPES.join(", "),
            shown(&kind)
        );
        return Err(thinking.error("type", problem));
    }
    let budget = thinking.whole("budget_tokens", MAX_TOKENS)?;
    if budget.is_some_and(|budget| max_tokens.is_some_and(|most| budget as usize >= most)) {
        return Err(thinking.error("budget_tokens", "expected fewer than `max_tokens`"));
    }
    thinking.pass_over(&["display"]);
    thinking.finish(&["type", "budget_tokens", "display"], ignore_unknown)
}

async fn complete(submitted: Submitted, shape: Shape) -> Result<Response<Body>, ApiError> {
    let mut answers = whole(submitted).await?;
    let Some(Answer { text, end, .. }) = answers.pop() else {
        return Err(ApiError::internal("the answer is missing"));
    };
    let (content, has_calls) = shape.blocks.clone().whole(&text)?;
    let (reason, stop) = shape.stop_reason(&end, has_calls);
    let message = Whole {
        id: &shape.id,
        kind: "message",
        role: "assistant",
        model: &shape.model,
        content,
        stop_reason: reason,
        stop_sequence: stop,
        usage: shape.usage(&end),
    };
    let text = serde_json::to_string(&message);
    text.map(json_text)
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// A whole answer.
#[derive(Serialize)]
struct Whole<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block>,
    stop_reason: &'static str,
    stop_sequence: Option<&'a str>,
    usage: Value,
}

/// How an answer is written, whole or as events.
struct Shape {
    id: String,
    model: String,
    tokenizer: Arc<Tokenizer>,
    stop: Vec<String>,
    prompt_tokens: usize,
    last: Option<End>,
    blocks: Blocks,
}

impl Shape {
    fn new(app: &App, submitted: &Submitted, stop: Vec<String>) -> Self {
        Self {
            id: format!("msg_{}", submitted.name),
            model: app.model.alias.clone(),
            tokenizer: Arc::clone(&app.model.tokenizer),
            stop,
            prompt_tokens: submitted.prompt_tokens,
            last: None,
            blocks: Blocks::new(submitted.splitter.clone(), format!("toolu_{}", submitted.name)),
        }
    }

    /// A message of which nothing has come.
    fn message(&self) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": self.prompt_tokens, "output_tokens": 0}
        })
    }

    /// Anthropic counts what was in the cache apart from the other input.
    fn usage(&self, end: &End) -> Value {
        let mut usage = json!({
            "input_tokens": self.prompt_tokens - end.cached_tokens,
            "cache_read_input_tokens": end.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": end.tokens.len()
        });
        if let Some(energy_j) = end.energy_j {
            usage["energy_j"] = rounded(energy_j).into();
        }
        usage
    }

    /// Anthropic's word for the end, and the stop sequence that came.
    fn stop_reason(&self, end: &End, has_calls: bool) -> (&'static str, Option<&str>) {
        match end.reason {
            FinishReason::Eos if has_calls => ("tool_use", None),
            FinishReason::Eos | FinishReason::Cancelled => ("end_turn", None),
            FinishReason::MaxTokens | FinishReason::Context => ("max_tokens", None),
            FinishReason::StopString => ("stop_sequence", self.stop_that_came(end)),
        }
    }

    /// The engine says that a stop string ended the text, not which: it is the one that the tokens' text has first.
    fn stop_that_came(&self, end: &End) -> Option<&str> {
        let text = text_of(&self.tokenizer, &end.tokens).ok()?;
        let places = self
            .stop
            .iter()
            .filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
        places
            .min_by_key(|(place, _)| *place)
            .map(|(_, stop)| stop.as_str())
    }
}

fn text_of(tokenizer: &Arc<Tokenizer>, tokens: &[u32]) -> Result<String, TokenizerError> {
    let mut stream = DecodeStream::new(Arc::clone(tokenizer), true);
    let mut text = String::new();
    for &token in tokens {
        text += &stream.push(token)?;
    }
    text += &stream.finish()?;
    Ok(text)
}

impl EventWriter for Shape {
    fn begin(&mut self) -> String {
        event_of("message_start", json!({"message": self.message()}))
    }

    fn token(&mut self, _: usize, piece: Piece) -> String {
        self.blocks.push(&piece.text)
    }

    fn finish(&mut self, _: usize, rest: String, end: End) -> String {
        self.last = Some(end);
        self.blocks.finish(&rest)
    }

    fn end(&mut self) -> String {
        let mut events = String::new();
        if let Some(end) = &self.last {
            let (reason, stop) = self.stop_reason(end, self.blocks.has_calls());
            let delta = json!({"stop_reason": reason, "stop_sequence": stop});
            events += &event_of("message_delta", json!({"delta": delta, "usage": self.usage(end)}));
        }
        events + &event_of("message_stop", json!({}))
    }

    fn fail(&mut self, error: &ApiError) -> String {
        event(Some("error"), &error.anthropic())
    }
}
