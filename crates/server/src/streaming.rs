//! Answers as they grow: updates of a job become the body of a response, piece by piece or whole.

use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use dualgrain::Logprobs;
use futures_util::stream;
use serde_json::Value;

use crate::app::Submitted;
use crate::error::ApiError;
use crate::running::{End, Fault, News, Update};

/// Silence after which a comment is sent, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A choice that is complete.
#[derive(Debug)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Its tokens that were told of, with their log-probabilities where they were asked for.
    pub tokens: Vec<(u32, Option<Logprobs>)>,
    /// How it ended.
    pub end: End,
}

/// How an interface writes a stream of events. Each function gives whole events, or nothing.
pub trait EventWriter: Send + 'static {
    /// Before anything has come.
    fn begin(&mut self) -> String;
    /// A token of a choice, with text that may be empty.
    fn token(&mut self, choice: usize, piece: Piece) -> String;
    /// The end of a choice, with text that was held back.
    fn finish(&mut self, choice: usize, rest: String, end: End) -> String;
    /// After all choices.
    fn end(&mut self) -> String;
    /// In place of what is missing.
    fn fail(&mut self, error: &ApiError) -> String;
}

/// What a token brought.
#[derive(Debug)]
pub struct Piece {
    /// The token.
    pub token: u32,
    /// Text, maybe empty.
    pub text: String,
    /// Where they were asked for.
    pub logprobs: Option<Logprobs>,
}

/// An event with JSON data, named where the interface names its events.
pub fn event(name: Option<&str>, data: &Value) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// All answers of a job, when they are complete.
pub async fn whole(submitted: Submitted) -> Result<Vec<Answer>, ApiError> {
    let Submitted {
        mut updates,
        num_choices,
        ..
    } = submitted;
    let mut growing: Vec<_> = (0..num_choices)
        .map(|_| (String::new(), Vec::new(), None))
        .collect();
    let mut open = num_choices;
    while open > 0 {
        let Update { choice, news } = updates.recv().await.ok_or_else(cut_off)?;
        let (text, tokens, end) = &mut growing[choice];
        match news {
            News::Token {
                token,
                text: piece,
                logprobs,
            } => {
                text.push_str(&piece);
                tokens.push((token, logprobs));
            }
            News::Finished { rest, end: how } => {
                text.push_str(&rest);
                *end = Some(how);
                open -= 1;
            }
            News::Failed { message, fault } => return Err(failure(message, fault)),
        }
    }
    let complete = growing.into_iter().filter_map(|(text, tokens, end)| {
        let end = end?;
        Some(Answer { text, tokens, end })
    });
    Ok(complete.collect())
}

/// A response that streams a job's updates. When it is dropped, the job is cancelled.
pub fn stream_response(submitted: Submitted, writer: impl EventWriter) -> Response<Body> {
    let stream = Growing {
        open: submitted.num_choices,
        submitted,
        writer,
        state: State::New,
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(stream, Growing::next)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies of nginx's kind would collect the pieces.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}

struct Growing<W> {
    submitted: Submitted,
    writer: W,
    /// Choices that have not ended.
    open: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Running,
    Ended,
}

/// Why a stream breaks off: its reader was too slow.
#[derive(Debug, thiserror::Error)]
#[error("the reader was too slow")]
struct CutOff;

impl<W: EventWriter> Growing<W> {
    /// The next bytes; `None` after the last.
    async fn next(mut self) -> Option<(Result<String, CutOff>, Self)> {
        match self.state {
            State::New => {
                self.state = State::Running;
                let events = self.writer.begin();
                Some((Ok(events), self))
            }
            State::Running => {
                let events = self.more().await;
                Some((events, self))
            }
            State::Ended => None,
        }
    }

    /// Waits until there is something to send.
    async fn more(&mut self) -> Result<String, CutOff> {
        let mut events = String::new();
        while events.is_empty() {
            let received = tokio::time::timeout(KEEP_ALIVE, self.submitted.updates.recv()).await;
            events = match received {
                Err(_) => ": waiting\n\n".to_owned(),
                Ok(None) => {
                    self.state = State::Ended;
                    return Err(CutOff);
                }
                Ok(Some(update)) => self.write(update),
            };
            // What has come meanwhile goes into the same piece.
            while self.state == State::Running
                && let Ok(update) = self.submitted.updates.try_recv()
            {
                events += &self.write(update);
            }
        }
        Ok(events)
    }

    fn write(&mut self, Update { choice, news }: Update) -> String {
        match news {
            News::Token {
                token,
                text,
                logprobs,
            } => self.writer.token(
                choice,
                Piece {
                    token,
                    text,
                    logprobs,
                },
            ),
            News::Finished { rest, end } => {
                let mut events = self.writer.finish(choice, rest, end);
                self.open -= 1;
                if self.open == 0 {
                    self.state = State::Ended;
                    events += &self.writer.end();
                }
                events
            }
            News::Failed { message, fault } => {
                self.state = State::Ended;
                self.writer.fail(&failure(message, fault))
            }
        }
    }
}

/// The error of a job that failed.
fn failure(message: String, fault: Fault) -> ApiError {
    match fault {
        Fault::Engine => ApiError::internal(message),
        Fault::Stopping => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message),
        Fault::Late => ApiError::late(message),
        // Clients would send a request again that met a conflict.
        Fault::Cancelled => ApiError::new(StatusCode::GONE, message).with_code("cancelled"),
    }
}

fn cut_off() -> ApiError {
    ApiError::internal("the answer broke off")
}
