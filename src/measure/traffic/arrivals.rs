//! When requests are sent: so many at once, or at random moments.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};

use crate::measure::traffic::answer::{Answer, Question, ask};
use crate::measure::traffic::target::Target;
use crate::measure::traffic::words::Random;

/// Between two looks at how far a measurement has come.
const TICK: Duration = Duration::from_millis(100);
/// The stream of random numbers of moments.
const MOMENTS: u64 = u64::MAX - 1;

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Arrival {
    /// So many at once: the next is sent when one has ended.
    AtOnce(usize),
    /// So many a second, at random moments (a Poisson process), whoever has not ended yet.
    PerSecond(f64),
}

impl Arrival {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::AtOnce(count) => format!("{count} at once"),
            Self::PerSecond(rate) => format!("{rate} a second"),
        }
    }
}

/// Who is asked, and whoever watches: `watch` is told of the texts that have come, and says whether to go on.
pub struct Asking<'a> {
    /// Who is asked.
    pub target: &'a Arc<Target>,
    /// Told of the events with text so far; `false` ends everything.
    pub watch: &'a dyn Fn(u64) -> bool,
}

impl Asking<'_> {
    /// Sends all questions and waits for their answers, in the order in which they end.
    pub async fn all(&self, questions: Vec<Question>, arrival: Arrival, seed: u64) -> Result<Vec<Answer>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let seen = Arc::new(AtomicU64::new(0));
        let sending = Sending {
            target: Arc::clone(self.target),
            seen: Arc::clone(&seen),
            answers: sender,
        };
        let num_questions = questions.len();
        match arrival {
            Arrival::AtOnce(count) => sending.at_once(questions, count),
            Arrival::PerSecond(rate) => sending.at_moments(questions, rate, seed),
        }
        let mut answers = Vec::with_capacity(num_questions);
        let mut ticks = interval(TICK);
        loop {
            tokio::select! {
                answer = receiver.recv() => match answer {
                    Some(answer) => answers.push(answer),
                    None => return Ok(answers),
                },
                _ = ticks.tick() => if !(self.watch)(seen.load(Ordering::Relaxed)) {
                    bail!("interrupted after {} of {num_questions} requests", answers.len());
                },
            }
        }
    }
}

/// What a task that asks needs.
#[derive(Clone)]
struct Sending {
    target: Arc<Target>,
    seen: Arc<AtomicU64>,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Sending {
    fn at_once(self, questions: Vec<Question>, count: usize) {
        let questions = Arc::new(Mutex::new(VecDeque::from(questions)));
        for _ in 0..count {
            let (sending, questions) = (self.clone(), Arc::clone(&questions));
            tokio::spawn(async move {
                while let Some(question) = next(&questions) {
                    let due = Instant::now();
                    sending.ask(Question { due, ..question }).await;
                }
            });
        }
    }

    fn at_moments(self, questions: Vec<Question>, rate: f64, seed: u64) {
        let mut random = Random::new(seed, MOMENTS);
        let mut due = Instant::now();
        for question in questions {
            // Times between the events of a Poisson process are exponential.
            due += Duration::from_secs_f64(-(1.0 - random.share()).ln() / rate);
            let sending = self.clone();
            tokio::spawn(async move {
                sleep_until(due).await;
                sending.ask(Question { due, ..question }).await;
            });
        }
    }

    async fn ask(&self, question: Question) {
        let answer = ask(&self.target, question, &self.seen).await;
        // Nobody waits for answers after an interruption.
        let _ = self.answers.send(answer);
    }
}

fn next(questions: &Mutex<VecDeque<Question>>) -> Option<Question> {
    questions.lock().ok()?.pop_front()
}
