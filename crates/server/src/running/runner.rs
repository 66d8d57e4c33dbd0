//! The engine's thread: takes jobs, runs steps, gives out what they bring.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use dualgrain::{AnyDevice, Engine, Event, Generation, Request, SequenceId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::account::Account;
use super::job::{Command, End, Job, News, Update};
use super::metrics::{Metrics, reason_word};
use super::progress::Progress;

/// Owns the engine and all jobs.
pub struct Runner {
    engine: Engine<AnyDevice>,
    commands: mpsc::Receiver<Command>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    jobs: BTreeMap<u64, Running>,
    /// Which choice of which job a sequence is.
    sequences: BTreeMap<SequenceId, Choice>,
    next_job: u64,
    stopping: bool,
    log_texts: bool,
}

/// A job under way.
struct Running {
    job: Job,
    /// Choices that begin when the one with the same prompt has its first token: then they hold the pages of its prompt.
    held: Vec<(usize, Request)>,
    submitted: Instant,
}

/// A sequence's choice and its times.
struct Choice {
    job: u64,
    index: usize,
    /// Whether its prompt differs from that of the choice before.
    leads: bool,
    account: Arc<Account>,
    prompt_tokens: usize,
    cached_tokens: Option<usize>,
    last_token: Option<Instant>,
}

impl Runner {
    /// A thread's work, with no jobs yet.
    pub fn new(
        engine: Engine<AnyDevice>,
        commands: mpsc::Receiver<Command>,
        (metrics, progress): (Arc<Metrics>, Arc<Progress>),
        log_texts: bool,
    ) -> Self {
        Self {
            engine,
            commands,
            metrics,
            progress,
            jobs: BTreeMap::new(),
            sequences: BTreeMap::new(),
            next_job: 0,
            stopping: false,
            log_texts,
        }
    }

    /// Works until it is told to stop or nobody can submit any more.
    pub fn run(mut self) {
        while self.take_commands() {
            self.abandon_unread();
            let events = self.engine.step();
            self.count_step();
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

    /// Admits the first choice of each prompt of a job.
    fn begin(&mut self, mut job: Job) {
        self.progress.step();
        let id = self.next_job;
        self.next_job += 1;
        let mut held = Vec::new();
        let mut first = Vec::new();
        for (index, request) in std::mem::take(&mut job.requests).into_iter().enumerate() {
            let leader: Option<&(usize, Request)> = first.last();
            match leader.is_some_and(|(_, leader)| leader.prompt == request.prompt) {
                true => held.push((index, request)),
                false => first.push((index, request)),
            }
        }
        let submitted = Instant::now();
        self.jobs.insert(id, Running { job, held, submitted });
        first
            .into_iter()
            .for_each(|(index, request)| self.admit(id, (index, true), request));
    }

    fn admit(&mut self, job: u64, (index, leads): (usize, bool), request: Request) {
        // A choice before it may have failed, and the job with it.
        let Some(running) = self.jobs.get(&job) else {
            return;
        };
        let account = Arc::clone(&running.job.account);
        let prompt_tokens = request.prompt.len();
        match self.engine.admit(request) {
            Ok(sequence) => {
                let choice = Choice {
                    job,
                    index,
                    leads,
                    account,
                    prompt_tokens,
                    cached_tokens: None,
                    last_token: None,
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
                choice.account.begin(cached_tokens, choice.leads);
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

    /// Admits the choices that waited for the pages of this one's prompt.
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
        for (index, request) in begun {
            self.admit(job, (index, false), request);
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
        };
        self.metrics.count_success(end.reason);
        choice.account.end(reason_word(end.reason));
        if self.log_texts {
            tracing::info!(id = choice.account.id, answer = generation.text, "answer");
        }
        let job = choice.job;
        if let Some(running) = self.jobs.get(&job) {
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
                running.job.account.end("the reader was too slow");
                self.metrics.slow_readers.inc();
            }
            Err(TrySendError::Closed(_)) => _ = self.metrics.abandoned.inc(),
        };
        self.drop_job(id);
    }

    /// A choice can not go on: its job ends with what is known of it.
    fn fail(&mut self, job: u64, choice: usize, message: String) {
        let stopping = self.stopping;
        if !stopping {
            self.metrics.failures.inc();
            let id = self.jobs.get(&job).map(|running| running.job.account.id.as_str());
            tracing::error!(id, message, "a request failed");
        }
        let news = News::Failed { message, stopping };
        if let Some(running) = self.jobs.get(&job) {
            let why = if stopping { "the server ended" } else { "failed" };
            running.job.account.end(why);
            // A reader that is gone or too slow needs no reason.
            let _ = running.job.updates.try_send(Update { choice, news });
        }
        self.drop_job(job);
    }

    /// Cancels what is left of a job.
    fn drop_job(&mut self, job: u64) {
        self.jobs.remove(&job);
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
        let is_open = self.sequences.values().any(|choice| choice.job == job);
        if !is_open && self.jobs.get(&job).is_some_and(|running| running.held.is_empty()) {
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
            .set((scheduler.num_waiting() + held) as i64);
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
