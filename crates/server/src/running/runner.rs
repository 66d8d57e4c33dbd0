//! The engine's thread: takes jobs, runs steps, gives out what they bring.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use dualgrain::{AnyDevice, Engine, Event, Generation, Request, SequenceId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::account::Account;
use super::flow::Flow;
use super::job::{Command, End, Fault, Job, News, Update};
use super::metrics::{Metrics, reason_word};
use super::progress::Progress;
use super::waiting::{Entry, Rank, Waiting};
use crate::energy::Meter;

/// Owns the engine and all jobs.
pub struct Runner {
    engine: Engine<AnyDevice>,
    commands: mpsc::Receiver<Command>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    flow: Arc<Flow>,
    jobs: BTreeMap<u64, Running>,
    /// Sequences that the engine does not know of yet: it would run them in the order they came.
    waiting: Waiting,
    /// Which choice of which job a sequence is.
    sequences: BTreeMap<SequenceId, Choice>,
    next_job: u64,
    step_began: Instant,
    stopping: bool,
    log_texts: bool,
    meter: Meter,
}

/// A job under way.
struct Running {
    job: Job,
    /// Choices that begin when the one with the same prompt has its first token: then they hold the pages of its prompt.
    held: Vec<(usize, Request)>,
    submitted: Instant,
    /// Choices that have not ended.
    open: usize,
}

/// A sequence's choice and its times.
struct Choice {
    job: u64,
    index: usize,
    /// Whether its prompt differs from that of the choice before.
    leads: bool,
    account: Arc<Account>,
    rank: Rank,
    prompt_tokens: usize,
    cached_tokens: Option<usize>,
    last_token: Option<Instant>,
    energy_j: f64,
}

impl Runner {
    /// A thread's work, with no jobs yet.
    pub fn new(
        engine: Engine<AnyDevice>,
        commands: mpsc::Receiver<Command>,
        (metrics, progress, flow): (Arc<Metrics>, Arc<Progress>, Arc<Flow>),
        (log_texts, meter): (bool, Meter),
    ) -> Self {
        Self {
            engine,
            commands,
            metrics,
            progress,
            flow,
            jobs: BTreeMap::new(),
            waiting: Waiting::default(),
            sequences: BTreeMap::new(),
            next_job: 0,
            step_began: Instant::now(),
            stopping: false,
            log_texts,
            meter,
        }
    }

    /// Works until it is told to stop or nobody can submit any more.
    pub fn run(mut self) {
        while self.take_commands() {
            self.abandon_unread();
            self.end_late();
            self.end_cancelled();
            self.let_in();
            self.step_began = Instant::now();
            let events = self.engine.step();
            self.count_step();
            self.share_energy();
            for event in events {
                self.deliver(event);
            }
            self.publish();
        }
        self.fail_all();
        self.publish();
    }

    /// Takes what was submitted, and waits for something where nothing is left to do. Whether to go on.
    fn take_commands(&mut self) -> bool {
        if self.jobs.is_empty() {
            self.progress.rest();
            match self.commands.blocking_recv() {
                Some(command) => self.obey(command),
                None => return false,
            }
            self.meter.skip();
        }
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        !self.stopping
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Run(job) => self.begin(job),
            Command::Stop => self.stopping = true,
        }
    }

    /// The first choice of each prompt of a job begins to wait.
    fn begin(&mut self, mut job: Job) {
        self.progress.step();
        let id = self.next_job;
        self.next_job += 1;
        let open = job.requests.len();
        let mut held = Vec::new();
        let mut first = Vec::new();
        for (index, request) in std::mem::take(&mut job.requests).into_iter().enumerate() {
            let leader: Option<&(usize, Request)> = first.last();
            match leader.is_some_and(|(_, leader)| leader.prompt == request.prompt) {
                true => held.push((index, request)),
                false => first.push((index, request)),
            }
        }
        let rank = job.terms.rank;
        for (index, request) in first.drain(..) {
            let entry = Entry {
                tokens: Some(job.tokens.split(request.prompt.len())),
                request,
                leads: true,
            };
            self.waiting.push(rank, (id, index), entry);
        }
        let submitted = Instant::now();
        self.jobs.insert(
            id,
            Running {
                job,
                held,
                submitted,
                open,
            },
        );
    }

    /// Gives the engine as many sequences as it has slots for. One that finds no pages there is passed by nobody.
    fn let_in(&mut self) {
        self.waiting.tick(Instant::now());
        let scheduler = self.engine.scheduler();
        if scheduler.num_waiting() > 0 {
            return;
        }
        for _ in scheduler.num_running()..scheduler.session().limits().num_sequences {
            let Some((job, index, entry)) = self.waiting.pop() else {
                return;
            };
            if entry.leads {
                self.flow.tokens.count(entry.request.prompt.len());
            }
            self.admit(job, (index, entry.leads), entry.request);
        }
    }

    fn admit(&mut self, job: u64, (index, leads): (usize, bool), request: Request) {
        // A choice before it may have failed, and the job with it.
        let Some(running) = self.jobs.get(&job) else {
            return;
        };
        let terms = running.job.terms.clone();
        let prompt_tokens = request.prompt.len();
        match self.engine.admit(request) {
            Ok(sequence) => {
                let choice = Choice {
                    job,
                    index,
                    leads,
                    account: terms.account,
                    rank: terms.rank,
                    prompt_tokens,
                    cached_tokens: None,
                    last_token: None,
                    energy_j: 0.0,
                };
                self.sequences.insert(sequence, choice);
            }
            Err(error) => self.fail(job, index, error.to_string()),
        }
    }

    /// Ends jobs whose reader is gone, wherever they stand.
    fn abandon_unread(&mut self) {
        let unread = self
            .jobs
            .iter()
            .filter(|(_, running)| running.job.updates.is_closed());
        let unread: Vec<u64> = unread.map(|(&id, _)| id).collect();
        for id in unread {
            self.metrics.abandoned.inc();
            self.drop_job(id);
        }
    }

    /// Ends jobs whose time is over, wherever they stand.
    fn end_late(&mut self) {
        let now = Instant::now();
        let is_late = |running: &Running| running.job.terms.deadline.is_some_and(|deadline| deadline <= now);
        let late = self.jobs.iter().filter(|(_, running)| is_late(running));
        let late: Vec<u64> = late.map(|(&id, _)| id).collect();
        for id in late {
            self.metrics.timeouts.inc();
            self.end_with(id, 0, "the time for this request is over".to_owned(), Fault::Late);
        }
    }

    /// Ends jobs that other requests have ended, wherever they stand.
    fn end_cancelled(&mut self) {
        let is_cancelled = |running: &Running| running.job.terms.cancelled.is_set();
        let cancelled = self.jobs.iter().filter(|(_, running)| is_cancelled(running));
        let cancelled: Vec<u64> = cancelled.map(|(&id, _)| id).collect();
        for id in cancelled {
            self.metrics.cancelled.inc();
            self.end_with(id, 0, "this request was cancelled".to_owned(), Fault::Cancelled);
        }
    }

    /// Counts what the last step said as a whole.
    fn count_step(&mut self) {
        let step = self.engine.last_step();
        self.metrics.preemptions.inc_by(step.num_preempted as u64);
        for &(sequence, cached_tokens) in &step.begun {
            if let Some(choice) = self.sequences.get_mut(&sequence)
                && choice.cached_tokens.is_none()
            {
                choice.cached_tokens = Some(cached_tokens);
                self.metrics.prompt_tokens.inc_by(choice.prompt_tokens as u64);
                self.metrics.cache_queries.inc_by(choice.prompt_tokens as u64);
                self.metrics.cache_hits.inc_by(cached_tokens as u64);
                choice.account.begin(self.step_began, cached_tokens, choice.leads);
                let run = choice.prompt_tokens.saturating_sub(cached_tokens);
                self.waiting.serve(choice.rank.key, run);
            }
        }
    }

    /// Shares what the last step used by the tokens that it ran.
    fn share_energy(&mut self) {
        if !self.meter.counts() {
            return;
        }
        let energy_j = self.meter.since_last_j();
        self.metrics.energy_j.inc_by(energy_j);
        let computed = &self.engine.last_step().computed;
        let num_tokens: usize = computed.iter().map(|(_, tokens)| tokens).sum();
        for &(sequence, tokens) in computed {
            if let Some(choice) = self.sequences.get_mut(&sequence) {
                choice.energy_j += energy_j * tokens as f64 / num_tokens as f64;
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Token {
                id,
                token,
                text,
                logprobs,
            } => {
                self.count_token(id);
                let news = News::Token {
                    token,
                    text,
                    logprobs,
                };
                self.tell(id, news);
                self.begin_held(id);
            }
            Event::Finished { id, rest, generation } => {
                self.begin_held(id);
                self.finish(id, rest, generation);
            }
            Event::Failed { id, error } => {
                if let Some(Choice { job, index, .. }) = self.sequences.remove(&id) {
                    self.fail(job, index, error.to_string());
                }
            }
        }
    }

    fn count_token(&mut self, sequence: SequenceId) {
        self.metrics.generated_tokens.inc();
        let Some(choice) = self.sequences.get_mut(&sequence) else {
            return;
        };
        choice.account.token();
        self.waiting.serve(choice.rank.key, 1);
        let now = Instant::now();
        match choice.last_token.replace(now) {
            Some(last) => self.metrics.inter_token_s.observe((now - last).as_secs_f64()),
            None => {
                if let Some(running) = self.jobs.get(&choice.job) {
                    let waited = now - running.submitted;
                    self.metrics.first_token_s.observe(waited.as_secs_f64());
                }
            }
        }
    }

    /// The choices that waited for the pages of this one's prompt wait for slots.
    fn begin_held(&mut self, sequence: SequenceId) {
        let Some(&Choice { job, index, .. }) = self.sequences.get(&sequence) else {
            return;
        };
        let Some(running) = self.jobs.get_mut(&job) else {
            return;
        };
        // The choices of a prompt follow each other, and the next prompt begins with one that was not held.
        let mut next = index + 1;
        let follows = |(held, _): &mut (usize, Request)| {
            let follows = *held == next;
            next += usize::from(follows);
            follows
        };
        let begun: Vec<_> = running.held.extract_if(.., follows).collect();
        let rank = running.job.terms.rank;
        for (index, request) in begun {
            let entry = Entry {
                request,
                leads: false,
                tokens: None,
            };
            self.waiting.push(rank, (job, index), entry);
        }
    }

    fn finish(&mut self, sequence: SequenceId, rest: String, generation: Generation) {
        let Some(choice) = self.sequences.get(&sequence) else {
            return;
        };
        let end = End {
            reason: generation.finish_reason,
            tokens: generation.tokens,
            cached_tokens: choice.cached_tokens.unwrap_or(0),
            energy_j: self.meter.counts().then_some(choice.energy_j),
        };
        self.metrics.count_success(end.reason);
        choice.account.end(reason_word(end.reason));
        if let Some(energy_j) = end.energy_j {
            choice.account.spend(energy_j);
        }
        if self.log_texts {
            tracing::info!(id = choice.account.id, answer = generation.text, "answer");
        }
        let job = choice.job;
        self.flow.places.count(1);
        if let Some(running) = self.jobs.get_mut(&job) {
            running.open -= 1;
            let elapsed = running.submitted.elapsed();
            self.metrics.request_s.observe(elapsed.as_secs_f64());
        }
        self.tell(sequence, News::Finished { rest, end });
        self.sequences.remove(&sequence);
        self.end_if_complete(job);
    }

    /// Gives news to a job's reader. A reader that is too slow or gone ends the job.
    fn tell(&mut self, sequence: SequenceId, news: News) {
        let Some(choice) = self.sequences.get(&sequence) else {
            return;
        };
        let silent = matches!(&news, News::Token { text, logprobs: None, .. } if text.is_empty());
        let (id, choice) = (choice.job, choice.index);
        let Some(running) = self.jobs.get(&id).filter(|_| !silent) else {
            return;
        };
        match running.job.updates.try_send(Update { choice, news }) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => {
                running.job.terms.account.end("the reader was too slow");
                self.metrics.slow_readers.inc();
            }
            Err(TrySendError::Closed(_)) => _ = self.metrics.abandoned.inc(),
        };
        self.drop_job(id);
    }

    /// A choice can not go on: its job ends with what is known of it.
    fn fail(&mut self, job: u64, choice: usize, message: String) {
        let fault = if self.stopping {
            Fault::Stopping
        } else {
            Fault::Engine
        };
        if fault == Fault::Engine {
            self.metrics.failures.inc();
            let running = self.jobs.get(&job);
            let id = running.map(|running| running.job.terms.account.id.as_str());
            tracing::error!(id, message, "a request failed");
        }
        self.end_with(job, choice, message, fault);
    }

    /// Ends a job with an error.
    fn end_with(&mut self, job: u64, choice: usize, message: String, fault: Fault) {
        if let Some(running) = self.jobs.get(&job) {
            running.job.terms.account.end(match fault {
                Fault::Engine => "failed",
                Fault::Stopping => "the server ended",
                Fault::Late => "its time was over",
                Fault::Cancelled => "cancelled",
            });
            let news = News::Failed { message, fault };
            // A reader that is gone or too slow needs no reason.
            let _ = running.job.updates.try_send(Update { choice, news });
        }
        self.drop_job(job);
    }

    /// Cancels what is left of a job.
    fn drop_job(&mut self, job: u64) {
        if let Some(running) = self.jobs.remove(&job) {
            self.waiting.remove(running.job.terms.rank, job);
            self.flow.places.count(running.open);
        }
        let engine = &mut self.engine;
        self.sequences.retain(|&sequence, choice| {
            let is_other = choice.job != job;
            if !is_other {
                engine.cancel(sequence);
            }
            is_other
        });
    }

    fn end_if_complete(&mut self, job: u64) {
        if self.jobs.get(&job).is_some_and(|running| running.open == 0) {
            self.jobs.remove(&job);
        }
    }

    fn fail_all(&mut self) {
        let ids: Vec<u64> = self.jobs.keys().copied().collect();
        for id in ids {
            self.fail(id, 0, "the server is shutting down".to_owned());
        }
    }

    /// Leaves what others may ask for.
    fn publish(&self) {
        let scheduler = self.engine.scheduler();
        let num_pages = scheduler.session().num_pages().max(1);
        let held: usize = self.jobs.values().map(|running| running.held.len()).sum();
        self.metrics.num_running.set(scheduler.num_running() as i64);
        self.metrics
            .num_waiting
            .set((scheduler.num_waiting() + self.waiting.len() + held) as i64);
        self.metrics
            .num_waiting_tokens
            .set(self.flow.waiting.num_held() as i64);
        let usage = scheduler.num_held_pages() as f64 / num_pages as f64;
        self.metrics.cache_usage.set(usage);
        self.progress.step();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.progress.stop();
    }
}
