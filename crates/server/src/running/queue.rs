//! The way to the engine's thread: a bounded number of places, so that nobody waits without end.

use std::sync::Arc;

use dualgrain::{AnyDevice, Engine, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::flow::Flow;
use super::job::{Command, Job, Terms, Update};
use super::metrics::Metrics;
use super::progress::Progress;
use super::runner::Runner;
use crate::energy::{Energy, Meter};

/// How much a queue holds, and what it tells of it.
#[derive(Debug, Clone)]
pub struct QueueLimits {
    /// Sequences that run or wait, at most.
    pub places: usize,
    /// Tokens of prompts that wait, at most.
    pub tokens: usize,
    /// Updates that nobody has read, at most, for each choice of a job.
    pub buffered: usize,
    /// The counter of energy, where there is one.
    pub energy: Option<Energy>,
    /// Write the texts of answers to the log.
    pub log_texts: bool,
}

/// The way to the engine's thread.
#[derive(Debug)]
pub struct Queue {
    commands: mpsc::Sender<Command>,
    places: Arc<Semaphore>,
    limits: QueueLimits,
    flow: Arc<Flow>,
}

/// Why a job was not submitted.
#[derive(Debug)]
pub enum Unsubmitted {
    /// Too many tokens wait; when to come again, in seconds.
    Full(u64),
    /// The engine's thread is gone.
    Gone,
}

/// Places that were found free, for one job.
#[derive(Debug)]
pub struct Place<'a> {
    queue: &'a Queue,
    permit: OwnedSemaphorePermit,
}

impl Queue {
    /// Starts the thread that owns `engine`. The receiver resolves when the thread has ended.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        engine: Engine<AnyDevice>,
        limits: QueueLimits,
        metrics: Arc<Metrics>,
        progress: Arc<Progress>,
    ) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        // Every job holds a place, so this never fills up; one more for the end.
        let (commands, received) = mpsc::channel(limits.places + 1);
        let (ends, ended) = oneshot::channel();
        let flow = Arc::new(Flow::new(limits.tokens));
        let runner = Runner::new(
            engine,
            received,
            (metrics, progress, Arc::clone(&flow)),
            (limits.log_texts, Meter::new(limits.energy.clone())),
        );
        let body = move || {
            // Dropped at the end of the thread, also where it panics.
            let _ends: oneshot::Sender<()> = ends;
            runner.run();
        };
        std::thread::Builder::new().name("engine".into()).spawn(body)?;
        let places = Arc::new(Semaphore::new(limits.places));
        Ok((
            Self {
                commands,
                places,
                limits,
                flow,
            },
            ended,
        ))
    }

    /// Places for `choices` sequences; `None` where there are not so many now.
    pub fn reserve(&self, choices: usize) -> Option<Place<'_>> {
        let places = u32::try_from(choices).ok()?;
        let permit = Arc::clone(&self.places).try_acquire_many_owned(places).ok()?;
        Some(Place { queue: self, permit })
    }

    /// When `choices` more sequences may find places, in seconds, at the speed of late.
    pub fn retry_after_s(&self, choices: usize) -> u64 {
        let missing = choices.saturating_sub(self.places.available_permits());
        self.flow.places.retry_after_s(missing)
    }

    /// Sequences that run or wait, at most.
    pub fn num_places(&self) -> usize {
        self.limits.places
    }

    /// Ends every job with an error and the thread after it; new jobs find no place.
    pub fn stop(&self) {
        self.places.close();
        // A thread that is gone already needs no telling.
        let _ = self.commands.try_send(Command::Stop);
    }
}

impl Place<'_> {
    /// Submits a request for each choice; dropping the receiver cancels them. Prompts that stand side by side and are equal count once.
    ///
    /// # Errors
    /// Too many tokens wait, or the thread is gone.
    pub fn submit(self, requests: Vec<Request>, terms: Terms) -> Result<mpsc::Receiver<Update>, Unsubmitted> {
        let prompts = requests.chunk_by(|a, b| a.prompt == b.prompt);
        let num_tokens = prompts.map(|equal| equal[0].prompt.len()).sum();
        let late = |excess| Unsubmitted::Full(self.queue.flow.tokens.retry_after_s(excess));
        let tokens = self.queue.flow.waiting.take(num_tokens).map_err(late)?;
        let (updates, receiver) =
            mpsc::channel(self.queue.limits.buffered.saturating_mul(requests.len().max(1)));
        let job = Job {
            requests,
            updates,
            terms,
            tokens,
            place: self.permit,
        };
        let sent = self.queue.commands.try_send(Command::Run(job));
        sent.map(|()| receiver).map_err(|_| Unsubmitted::Gone)
    }
}
