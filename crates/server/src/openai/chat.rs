//! POST /v1/chat/completions.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use dualgrain::engine::chat::Message;
use dualgrain::engine::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::envelope::{Envelope, Usage, complete, fail, finish_reason};
use super::logprobs::chat_entry;
use crate::app::{App, Submitted};
use crate::error::ApiError;
use crate::parameters::{Api, Choices, Fields, Wanted};
use crate::prompt::{MessageRules, take_messages};
use crate::running::End;
use crate::streaming::{Answer, EventWriter, Piece, stream_response};

/// What a request asks for.
struct Asked {
    messages: Vec<Message>,
    wanted: Wanted,
    choices: Choices,
}

/// How messages of OpenAI's interface are read.
pub fn message_rules(app: &App) -> MessageRules {
    MessageRules {
        roles: &["system", "developer", "user", "assistant"],
        // Templates have no place for it.
        message_fields: &["name"],
        part_types: &["text"],
        part_fields: &[],
        ignore_unknown: app.options.ignore_unknown,
    }
}

/// Answers a conversation.
pub async fn chat(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    super::respond(answer(app, request).await)
}

async fn answer(app: Arc<App>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (fields, turn) = app.bodies.read(request).await?;
    let Asked {
        messages,
        wanted,
        choices,
    } = Asked::read(fields, &app)?;
    let submitted = app.submit_chat(turn, messages, (&wanted, choices)).await?;
    match choices.stream {
        true => {
            let writer = Chunks::new(&app, &submitted, choices);
            Ok(stream_response(submitted, writer))
        }
        false => {
            let choice = |index, answer: &Answer| choice(&app.model.tokenizer, index, answer);
            let kinds = ("chatcmpl", "chat.completion");
            complete(&app, kinds, (submitted, choices.n), choice).await
        }
    }
}

impl Asked {
    fn read(mut fields: Fields, app: &App) -> Result<Self, ApiError> {
        app.check_model(fields.text("model")?.as_deref())?;
        let messages = take_messages(&mut fields, message_rules(app))?;
        let choices = Choices::take(&mut fields, app.options.ignore_unknown)?;
        let mut wanted = Wanted::take(&mut fields, app.model.bounds)?;
        wanted.take_newer_max_tokens(&mut fields)?;
        take_logprobs(&mut wanted, &mut fields)?;
        fields.finish_request(Api::Chat, app.options.ignore_unknown)?;
        Ok(Self {
            messages,
            wanted,
            choices,
        })
    }
}

fn take_logprobs(wanted: &mut Wanted, fields: &mut Fields) -> Result<(), ApiError> {
    let asked = fields.flag("logprobs")?;
    wanted.take_logprobs(fields, "top_logprobs")?;
    let number = &mut wanted.sampling.num_logprobs;
    match (asked, *number) {
        (false, Some(_)) => Err(fields.error("top_logprobs", "only taken with \"logprobs\": true")),
        (true, None) => {
            *number = Some(0);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn choice(tokenizer: &Tokenizer, index: usize, answer: &Answer) -> Value {
    let entry =
        |(token, logprobs): &(u32, Option<_>)| Some(chat_entry(tokenizer, *token, logprobs.as_ref()?));
    let entries: Vec<Value> = answer.tokens.iter().filter_map(entry).collect();
    json!({
        "index": index,
        "message": {"role": "assistant", "content": answer.text},
        "logprobs": (!entries.is_empty()).then(|| json!({"content": entries})),
        "finish_reason": finish_reason(&answer.end)
    })
}

/// The chunks of a streamed answer.
struct Chunks {
    envelope: Envelope,
    tokenizer: Arc<Tokenizer>,
    usage: Usage,
    include_usage: bool,
    num_choices: usize,
}

impl Chunks {
    fn new(app: &App, submitted: &Submitted, choices: Choices) -> Self {
        Self {
            envelope: Envelope::new(app, "chatcmpl", "chat.completion.chunk"),
            tokenizer: Arc::clone(&app.model.tokenizer),
            usage: Usage::new(submitted.prompt_tokens, choices.n),
            include_usage: choices.include_usage,
            num_choices: submitted.num_choices,
        }
    }

    fn chunk(&self, choice: usize, delta: Value, logprobs: Value, finish_reason: Option<&str>) -> String {
        let choice =
            json!({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason});
        self.envelope.chunk(choice, self.include_usage)
    }
}

impl EventWriter for Chunks {
    fn begin(&mut self) -> String {
        let delta = json!({"role": "assistant", "content": ""});
        let first = |choice| self.chunk(choice, delta.clone(), Value::Null, None);
        (0..self.num_choices).map(first).collect()
    }

    fn token(
        &mut self,
        choice: usize,
        Piece {
            token,
            text,
            logprobs,
        }: Piece,
    ) -> String {
        let entry = logprobs.map(|logprobs| chat_entry(&self.tokenizer, token, &logprobs));
        let logprobs = entry.map_or(Value::Null, |entry| json!({"content": [entry]}));
        self.chunk(choice, json!({"content": text}), logprobs, None)
    }

    fn finish(&mut self, choice: usize, rest: String, end: End) -> String {
        self.usage.add(choice, &end);
        let delta = match rest.is_empty() {
            true => json!({}),
            false => json!({"content": rest}),
        };
        self.chunk(choice, delta, Value::Null, Some(finish_reason(&end)))
    }

    fn end(&mut self) -> String {
        self.envelope.end(self.include_usage.then_some(&self.usage))
    }

    fn fail(&mut self, error: &ApiError) -> String {
        fail(error)
    }
}
