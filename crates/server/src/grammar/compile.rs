//! Grammars to constraints, within bounds of time and size, on threads of their own.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use axum::http::StatusCode;
use dualgrain::engine::SharedConstraint;
use dualgrain::engine::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, token_bytes_from_tokenizer_json};
use serde_json::{Value, json};

use super::following::Compiled;
use super::limits::{COMPILE_TIME, MAX_COMPILING, STACK_BYTES, parser_limits};
use super::schema::{Checked, SchemaError, check};
use crate::error::ApiError;

/// Between tokens of JSON at most one space, or a line break with an indentation: a bad model may not fill its answer with white space.
const WHITE_SPACE: &str = " |\\n {0,32}";

/// What makes grammars for the tokens of one model.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    /// The token of the model that ends an answer; the library wants one by name.
    end_token: u32,
    /// Made when the first grammar is asked for: a second's work for a large vocabulary.
    factory: OnceLock<Result<Arc<ParserFactory>, String>>,
    places: Arc<Places>,
}

/// Places for threads that compile.
struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place, given back when its thread is done.
struct Place(Arc<Places>);

impl Places {
    /// A place, when one is free within a grammar's time.
    fn take(self: &Arc<Self>) -> Option<Place> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .freed
            .wait_timeout_while(free, COMPILE_TIME, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

impl Grammars {
    /// For the tokens of `tokenizer`; `end_tokens` are those that end an answer.
    pub fn new(tokenizer: Arc<Tokenizer>, end_tokens: &[u32]) -> Self {
        Self {
            tokenizer,
            end_token: end_tokens.first().copied().unwrap_or(INVALID_TOKEN),
            factory: OnceLock::new(),
            places: Arc::new(Places {
                free: Mutex::new(MAX_COMPILING),
                freed: Condvar::new(),
            }),
        }
    }

    /// The constraint to values of a schema that stands at `field` of the request. Waits; not for asynchronous threads.
    ///
    /// # Errors
    /// A schema that is not followed or whose grammar is too large; too many grammars at once.
    pub fn schema(&self, field: &str, schema: &Value) -> Result<SharedConstraint, ApiError> {
        let checked = check(schema).map_err(|error| refused(field, &error))?;
        let compiled = self.compile(TopLevelGrammar::from_json_schema(with_white_space(
            checked.at("#"),
        )));
        compiled.map_err(|error| error.at(field, &checked, self))
    }

    /// The constraint to a grammar in the library's own notation, made of `schemas`, each with the field it stands at.
    ///
    /// # Errors
    /// As [`Self::schema`].
    pub fn lark(&self, lark: String, schemas: &[(&str, Checked)]) -> Result<SharedConstraint, ApiError> {
        let compiled = self.compile(TopLevelGrammar::from_lark(lark));
        compiled.map_err(|error| {
            let (begun, is_refused) = (Instant::now(), matches!(error, CompileError::Refused(_)));
            let is_guilty = |(_, schema): &&(&str, Checked)| {
                let alone = self.compile_alone(schema.at("#"));
                matches!(alone, Err(CompileError::Refused(_)))
            };
            let mut tried = schemas
                .iter()
                .take_while(|_| is_refused && begun.elapsed() < COMPILE_TIME);
            match tried.find(is_guilty) {
                Some((field, schema)) => error.at(field, schema, self),
                None => error.without_place(schemas.first().map_or("tools", |(field, _)| field)),
            }
        })
    }

    fn compile_alone(&self, schema: Value) -> Result<SharedConstraint, CompileError> {
        self.compile(TopLevelGrammar::from_json_schema(schema))
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<SharedConstraint, CompileError> {
        let factory = self
            .factory
            .get_or_init(|| factory(&self.tokenizer, self.end_token));
        let factory = Arc::clone(
            factory
                .as_ref()
                .map_err(|what| CompileError::Tokenizer(what.clone()))?,
        );
        let place = self.places.take().ok_or(CompileError::Busy)?;
        let end_token = self.end_token;
        let (tell, told) = sync_channel(1);
        let work = move || {
            let compiled = matcher(&factory, grammar);
            drop(place);
            // Nobody may be waiting any more.
            let _ = tell.send(compiled);
        };
        let thread = thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK_BYTES);
        thread.spawn(work).map_err(|_| CompileError::Busy)?;
        match told.recv_timeout(COMPILE_TIME) {
            Ok(Ok(matcher)) => Ok(SharedConstraint(Arc::new(Compiled::new(matcher, end_token)))),
            Ok(Err(what)) => Err(CompileError::Refused(what)),
            Err(RecvTimeoutError::Timeout) => Err(CompileError::Late),
            Err(RecvTimeoutError::Disconnected) => Err(CompileError::Refused("it panicked".to_owned())),
        }
    }
}

/// Why there is no constraint.
enum CompileError {
    /// The library refuses it.
    Refused(String),
    /// It takes too long.
    Late,
    /// Too many are compiled already.
    Busy,
    /// The model's tokens have no bytes that are known.
    Tokenizer(String),
}

impl CompileError {
    /// The error of the request whose schema at `field` it is.
    fn at(self, field: &str, schema: &Checked, grammars: &Grammars) -> ApiError {
        match &self {
            Self::Refused(_) => match guilty(schema, grammars) {
                Some(error) => refused(field, &error),
                None => self.without_place(field),
            },
            _ => self.without_place(field),
        }
    }

    fn without_place(self, field: &str) -> ApiError {
        let bad = |problem: String| ApiError::field(field, problem).with_code("unsupported_schema");
        match self {
            Self::Refused(what) => bad(format!("#: this schema can not be followed: {}", one_line(&what))),
            Self::Late => bad(format!(
                "its grammar takes longer than {} s to compile: make the schema smaller",
                COMPILE_TIME.as_secs()
            )),
            Self::Busy => ApiError::come_again(
                StatusCode::TOO_MANY_REQUESTS,
                "too many grammars are being compiled: ask again later",
            ),
            Self::Tokenizer(what) => bad(format!("this model's tokens can not follow a grammar: {what}")),
        }
    }
}

fn refused(field: &str, error: &SchemaError) -> ApiError {
    ApiError::field(field, error.to_string()).with_code("unsupported_schema")
}

/// The smallest schema without references that the library refuses by itself, with its words. Its errors have no places, so the parts
/// are tried one by one, for as long as a grammar may take.
fn guilty(schema: &Checked, grammars: &Grammars) -> Option<SchemaError> {
    let begun = Instant::now();
    let mut parts: Vec<(usize, String, Value)> = Vec::new();
    for (path, part) in schema.parts() {
        let text = part.to_string();
        if !text.contains("\"$ref\"") {
            parts.push((text.len(), path, part));
        }
    }
    parts.sort_by_key(|part| part.0);
    let mut tried = parts.into_iter().take_while(|_| begun.elapsed() < COMPILE_TIME);
    tried.find_map(|(_, path, part)| match grammars.compile_alone(part) {
        Err(CompileError::Refused(what)) => Some(SchemaError {
            path,
            problem: format!("this can not be followed: {}", one_line(&what)),
        }),
        _ => None,
    })
}

fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A schema with what the library is told about the text between its values.
pub fn with_white_space(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        fields.insert(
            "x-guidance".to_owned(),
            json!({"whitespace_pattern": WHITE_SPACE}),
        );
    }
    schema
}

/// A matcher that has made its first mask: what is too much for a mask shows here rather than on the engine's thread.
fn matcher(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<Matcher, String> {
    let mut matcher = Matcher::new(factory.create_parser(grammar));
    match matcher.get_error() {
        Some(error) => Err(error),
        None => matcher
            .compute_mask()
            .map(|_| matcher)
            .map_err(|error| error.to_string()),
    }
}

fn factory(tokenizer: &Tokenizer, end_token: u32) -> Result<Arc<ParserFactory>, String> {
    let json = tokenizer.to_json().map_err(|error| error.to_string())?;
    let tokens = token_bytes_from_tokenizer_json(&json).map_err(|error| error.to_string())?;
    let info = TokRxInfo::new(tokens.len() as u32, end_token);
    let environment = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &tokens)));
    let mut factory = ParserFactory::new_simple(&(environment as _)).map_err(|error| error.to_string())?;
    factory.quiet();
    *factory.limits_mut() = parser_limits();
    Ok(Arc::new(factory))
}
