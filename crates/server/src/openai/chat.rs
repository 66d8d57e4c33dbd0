//! POST /v1/chat/completions.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use dualgrain::engine::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::delta::{Deltas, message};
use super::envelope::{Envelope, Usage, complete, fail, finish_reason};
use super::logprobs::chat_entry;
use crate::answers::{Form, Message, Parts, Rules, Splitter, Tools};
use crate::app::{App, Submitted};
use crate::error::ApiError;
use crate::parameters::{Api, CHAT_MESSAGES, Choices, Fields, Wanted};
use crate::prompt::{MessageRules, take_messages};
use crate::running::End;
use crate::streaming::{Answer, EventWriter, Piece, stream_response};

/// What a request asks for.
struct Asked {
    messages: Vec<Message>,
    wanted: Wanted,
    choices: Choices,
    rules: Rules,
}

/// How messages of OpenAI's interface are read.
pub fn message_rules(app: &App) -> MessageRules {
    MessageRules {
        words: CHAT_MESSAGES,
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
        rules,
    } = Asked::read(fields, &app)?;
    let submitted = app
        .submit_chat(turn, (messages, rules), (&wanted, choices))
        .await?;
    match choices.stream {
        true => {
            let writer = Chunks::new(&app, &submitted, choices);
            Ok(stream_response(submitted, writer))
        }
        false => {
            let (splitter, call_id) = (submitted.splitter.clone(), format!("call_{}", submitted.name));
            let choice = |index, answer: &Answer| {
                choice(
                    &app.model.tokenizer,
                    (index, answer),
                    (splitter.clone(), &call_id),
                )
            };
            let kinds = ("chatcmpl-", "chat.completion");
            complete(&app, kinds, (submitted, choices.n), choice).await
        }
    }
}

impl Asked {
    fn read(mut fields: Fields, app: &App) -> Result<Self, ApiError> {
        app.check_model(fields.text("model")?.as_deref())?;
        let ignore_unknown = app.options.ignore_unknown;
        let messages = take_messages(&mut fields, message_rules(app))?;
        let rules = Rules {
            form: Form::take_response_format(&mut fields, ignore_unknown)?,
            tools: Tools::take_chat(&mut fields, ignore_unknown)?,
        };
        let choices = Choices::take(&mut fields, app.options.ignore_unknown)?;
        let mut wanted = Wanted::take(&mut fields, app.model.bounds)?;
        wanted.take_newer_max_tokens(&mut fields)?;
        take_logprobs(&mut wanted, &mut fields)?;
        fields.finish_request(Api::Chat, app.options.ignore_unknown)?;
        Ok(Self {
            messages,
            wanted,
            choices,
            rules,
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

fn choice(
    tokenizer: &Tokenizer,
    (index, answer): (usize, &Answer),
    (splitter, call_id): (Splitter, &str),
) -> Value {
    let parts = Parts::of(splitter, &answer.text);
    let entry =
        |(token, logprobs): &(u32, Option<_>)| Some(chat_entry(tokenizer, *token, logprobs.as_ref()?));
    let entries: Vec<Value> = answer.tokens.iter().filter_map(entry).collect();
    json!({
        "index": index,
        "message": message(&parts, &format!("{call_id}-{index}")),
        "logprobs": (!entries.is_empty()).then(|| json!({"content": entries})),
        "finish_reason": finish_reason(&answer.end, !parts.calls.is_empty())
    })
}

/// The chunks of a streamed answer.
struct Chunks {
    envelope: Envelope,
    tokenizer: Arc<Tokenizer>,
    usage: Usage,
    include_usage: bool,
    /// Of each choice.
    deltas: Vec<Deltas>,
}

impl Chunks {
    fn new(app: &App, submitted: &Submitted, choices: Choices) -> Self {
        Self {
            envelope: Envelope::new(app, ("chatcmpl-", &submitted.name), "chat.completion.chunk"),
            tokenizer: Arc::clone(&app.model.tokenizer),
            usage: Usage::new(submitted.prompt_tokens, choices.n),
            include_usage: choices.include_usage,
            deltas: deltas(submitted),
        }
    }

    fn chunk(&self, choice: usize, delta: Value, logprobs: Value, finish_reason: Option<&str>) -> String {
        let choice =
            json!({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason});
        self.envelope.chunk(choice, self.include_usage)
    }
}

fn deltas(submitted: &Submitted) -> Vec<Deltas> {
    let call_id = format!("call_{}", submitted.name);
    let choices = 0..submitted.num_choices;
    choices
        .map(|choice| Deltas::new(submitted.splitter.clone(), format!("{call_id}-{choice}")))
        .collect()
}

impl EventWriter for Chunks {
    fn begin(&mut self) -> String {
        let delta = json!({"role": "assistant", "content": null});
        let first = |choice| self.chunk(choice, delta.clone(), Value::Null, None);
        (0..self.deltas.len()).map(first).collect()
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
        let mut deltas = self.deltas[choice].push(&text);
        let entry = logprobs.map(|logprobs| chat_entry(&self.tokenizer, token, &logprobs));
        if deltas.is_empty() && entry.is_some() {
            deltas.push(json!({"content": ""}));
        }
        let mut logprobs = entry.map_or(Value::Null, |entry| json!({"content": [entry]}));
        let chunks = deltas
            .into_iter()
            .map(|delta| self.chunk(choice, delta, logprobs.take(), None));
        chunks.collect()
    }

    fn finish(&mut self, choice: usize, rest: String, end: End) -> String {
        self.usage.add(choice, &end);
        let deltas = self.deltas[choice].finish(&rest).into_iter();
        let before: String = deltas
            .map(|delta| self.chunk(choice, delta, Value::Null, None))
            .collect();
        let reason = finish_reason(&end, self.deltas[choice].has_calls());
        before + &self.chunk(choice, json!({}), Value::Null, Some(reason))
    }

    fn end(&mut self) -> String {
        self.envelope.end(self.include_usage.then_some(&self.usage))
    }

    fn fail(&mut self, error: &ApiError) -> String {
        fail(error)
    }
}
