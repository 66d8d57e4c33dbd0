//! One request and its times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::measure::traffic::events::{Events, Usage, message};
use crate::measure::traffic::target::Target;

/// What is asked, and when.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where: it begins with a slash.
    pub path: &'static str,
    /// JSON.
    pub body: Bytes,
    /// When it is sent, or should be: times count from here.
    pub due: Instant,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a whole answer.
    Complete,
    /// The server had no room for it.
    Refused,
    /// Otherwise; the status where the server gave one.
    Failed(Option<StatusCode>, String),
}

/// A request and its times.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds until the first text.
    pub first_s: Option<f64>,
    /// Seconds from each event with text to the next.
    pub gaps_s: Vec<f64>,
    /// Seconds until the end.
    pub total_s: f64,
    /// Tokens as the server counts them; where it does not, an event counts as one.
    pub usage: Usage,
    /// When it was due.
    pub begun: Instant,
    /// When it had ended.
    pub ended: Instant,
}

impl Answer {
    /// Seconds between two tokens, on average; `None` of fewer than two.
    pub fn mean_gap_s(&self) -> Option<f64> {
        let tokens = self
            .usage
            .completion_tokens
            .checked_sub(1)
            .filter(|&tokens| tokens > 0)?;
        Some((self.total_s - self.first_s?) / tokens as f64)
    }
}

/// Sends a question and reads its answer to the end; `seen` counts events with text.
pub async fn ask(target: &Target, question: Question, seen: &AtomicU64) -> Answer {
    let mut times = Times::new(question.due);
    let deadline = question.due + question.timeout;
    let outcome = match timeout_at(deadline, times.follow(target, &question, seen)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(None, format!("{error:#}")),
        Err(_) => Outcome::Failed(None, format!("no end within {} s", question.timeout.as_secs())),
    };
    times.answer(outcome)
}

/// What is known of an answer that is coming.
struct Times {
    begun: Instant,
    last: Option<Instant>,
    first_s: Option<f64>,
    gaps_s: Vec<f64>,
    events: Events,
}

impl Times {
    fn new(begun: Instant) -> Self {
        Self {
            begun,
            last: None,
            first_s: None,
            gaps_s: Vec::new(),
            events: Events::default(),
        }
    }

    async fn follow(&mut self, target: &Target, question: &Question, seen: &AtomicU64) -> Result<Outcome> {
        let (response, connection) = target.post(question.path, question.body.clone()).await?;
        let status = response.status();
        let outcome = match status {
            StatusCode::OK => {
                self.read(response.into_body(), seen).await?;
                Outcome::Complete
            }
            _ => {
                let body = response.into_body().collect().await?.to_bytes();
                refusal(status, &body)
            }
        };
        target.keep(connection);
        Ok(outcome)
    }

    async fn read(&mut self, mut body: Incoming, seen: &AtomicU64) -> Result<()> {
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the answer broke off")?;
            let Some(data) = frame.data_ref() else { continue };
            let with_text = self.events.take(data)?;
            seen.fetch_add(with_text as u64, Ordering::Relaxed);
            let now = Instant::now();
            (0..with_text).for_each(|_| self.text_came(now));
        }
        // A body that is cut is an error above.
        ensure!(self.events.ended, "the answer ended without a reason");
        Ok(())
    }

    fn text_came(&mut self, now: Instant) {
        match self.last.replace(now) {
            Some(last) => self.gaps_s.push((now - last).as_secs_f64()),
            None => self.first_s = Some((now - self.begun).as_secs_f64()),
        }
    }

    fn answer(self, outcome: Outcome) -> Answer {
        let ended = Instant::now();
        let counted = Usage::of_events(self.gaps_s.len() + usize::from(self.first_s.is_some()));
        Answer {
            outcome,
            first_s: self.first_s,
            total_s: (ended - self.begun).as_secs_f64(),
            usage: self.events.usage.unwrap_or(counted),
            gaps_s: self.gaps_s,
            begun: self.begun,
            ended,
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Outcome {
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Outcome::Refused;
    }
    let said = match serde_json::from_slice(body) {
        Ok(value) => message(&value),
        Err(_) => String::from_utf8_lossy(body).chars().take(200).collect(),
    };
    Outcome::Failed(Some(status), format!("{status}: {said}"))
}
