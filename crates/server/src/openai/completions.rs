//! POST /v1/completions.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde_json::{Value, json};

use super::envelope::{Envelope, Usage, complete, fail, finish_reason};
use super::logprobs::CompletionLogprobs;
use crate::app::{App, Submitted};
use crate::error::ApiError;
use crate::parameters::{Api, Choices, Fields, Wanted};
use crate::prompt::{Prompt, take_prompts};
use crate::running::End;
use crate::streaming::{Answer, EventWriter, Piece, stream_response};

/// As OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What a request asks for.
struct Asked {
    prompts: Vec<Prompt>,
    wanted: Wanted,
    choices: Choices,
}

/// Continues prompts.
pub async fn completions(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    super::respond(answer(app, request).await)
}

async fn answer(app: Arc<App>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (fields, turn) = app.bodies.read(request).await?;
    let Asked {
        prompts,
        wanted,
        choices,
    } = Asked::read(fields, &app)?;
    let place = app.reserve(prompts.len().saturating_mul(choices.n))?;
    let tokens = app.blocking(turn, move |app| {
        prompts
            .into_iter()
            .map(|prompt| app.prompt_tokens(prompt))
            .collect()
    });
    let submitted = app.submit(place, tokens.await?, (&wanted, choices))?;
    match choices.stream {
        true => {
            let writer = Chunks::new(&app, &submitted, choices);
            Ok(stream_response(submitted, writer))
        }
        false => {
            let choice = |index, answer: &Answer| choice(&app, index, answer);
            let kinds = ("cmpl-", "text_completion");
            complete(&app, kinds, (submitted, choices.n), choice).await
        }
    }
}

impl Asked {
    fn read(mut fields: Fields, app: &App) -> Result<Self, ApiError> {
        app.check_model(fields.text("model")?.as_deref())?;
        let prompts = take_prompts(&mut fields, app.model.bounds.vocab_size)?;
        let choices = Choices::take(&mut fields, app.options.ignore_unknown)?;
        let mut wanted = Wanted::take(&mut fields, app.model.bounds)?;
        wanted.max_tokens.get_or_insert(DEFAULT_MAX_TOKENS);
        wanted.take_logprobs(&mut fields, "logprobs")?;
        fields.finish_request(Api::Completions, app.options.ignore_unknown)?;
        Ok(Self {
            prompts,
            wanted,
            choices,
        })
    }
}

fn choice(app: &App, index: usize, answer: &Answer) -> Value {
    let tokens = answer.tokens.iter();
    let mut tokens = tokens
        .filter_map(|(token, logprobs)| Some((*token, logprobs.as_ref()?)))
        .peekable();
    let mut lists = CompletionLogprobs::new(Arc::clone(&app.model.tokenizer));
    let logprobs = match tokens.peek().is_some() {
        true => lists.value(tokens),
        false => Value::Null,
    };
    let reason = finish_reason(&answer.end, false);
    json!({"index": index, "text": answer.text, "logprobs": logprobs, "finish_reason": reason})
}

/// The chunks of a streamed answer.
struct Chunks {
    envelope: Envelope,
    /// Of each choice.
    logprobs: Vec<CompletionLogprobs>,
    usage: Usage,
    include_usage: bool,
}

impl Chunks {
    fn new(app: &App, submitted: &Submitted, choices: Choices) -> Self {
        let lists = |_| CompletionLogprobs::new(Arc::clone(&app.model.tokenizer));
        Self {
            envelope: Envelope::new(app, ("cmpl-", &submitted.name), "text_completion"),
            logprobs: (0..submitted.num_choices).map(lists).collect(),
            usage: Usage::new(submitted.prompt_tokens, choices.n),
            include_usage: choices.include_usage,
        }
    }

    fn chunk(&self, choice: usize, text: &str, logprobs: Value, finish_reason: Option<&str>) -> String {
        let choice =
            json!({"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish_reason});
        self.envelope.chunk(choice, self.include_usage)
    }
}

impl EventWriter for Chunks {
    fn begin(&mut self) -> String {
        String::new()
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
        let lists = &mut self.logprobs[choice];
        let lists = logprobs.map(|logprobs| lists.value([(token, &logprobs)].into_iter()));
        self.chunk(choice, &text, lists.unwrap_or_default(), None)
    }

    fn finish(&mut self, choice: usize, rest: String, end: End) -> String {
        self.usage.add(choice, &end);
        self.chunk(choice, &rest, Value::Null, Some(finish_reason(&end, false)))
    }

    fn end(&mut self) -> String {
        self.envelope.end(self.include_usage.then_some(&self.usage))
    }

    fn fail(&mut self, error: &ApiError) -> String {
        fail(error)
    }
}
