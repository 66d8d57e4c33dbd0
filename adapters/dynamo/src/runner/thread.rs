//! The engine's thread: takes jobs, runs steps, gives out what they bring.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use dualgrain::engine::scheduler::{Event, Scheduler, StepReport, TokenRequest};
use dualgrain::engine::{EngineError, FinishReason, SequenceId};
use dualgrain::{AnyDevice, Logprobs};
use dynamo_backend_common::ComponentSnapshot;
use tokio::sync::mpsc;

use super::job::{Job, Update};
use super::page_events::PageEvents;
use super::publishers::Publishers;
use crate::metrics::Metrics;

/// Owns the model and all jobs.
pub struct EngineThread {
    scheduler: Scheduler<AnyDevice>,
    jobs: mpsc::UnboundedReceiver<(TokenRequest, Job)>,
    running: BTreeMap<SequenceId, Running>,
    metrics: Arc<Metrics>,
    publishers: Arc<Publishers>,
    page_events: PageEvents,
    /// Held pages that the router was told of last.
    published_pages: Option<usize>,
}

/// A job that the scheduler has.
struct Running {
    job: Job,
    prompt_tokens: usize,
    cached_tokens: Option<usize>,
    last_token: Option<Instant>,
    answer_tokens: usize,
}

impl EngineThread {
    /// A thread's work, with no jobs yet.
    pub fn new(
        scheduler: Scheduler<AnyDevice>,
        jobs: mpsc::UnboundedReceiver<(TokenRequest, Job)>,
        metrics: Arc<Metrics>,
        publishers: Arc<Publishers>,
    ) -> Self {
        Self {
            scheduler,
            jobs,
            running: BTreeMap::new(),
            metrics,
            publishers,
            page_events: PageEvents::default(),
            published_pages: None,
        }
    }

    /// Works until nobody can submit any more and all that was submitted has ended.
    pub fn run(mut self) {
        while self.take_jobs() {
            self.cancel_unread();
            let report = self.scheduler.step();
            self.count(&report);
            for event in report.events {
                self.deliver(event);
            }
            let events = self.page_events.take(report.pages);
            if let Some(publisher) = self.publishers.pages.get() {
                PageEvents::publish(publisher, events);
            }
            self.tell_load();
        }
    }

    /// Takes what was submitted, and waits for something where nothing is left to do. Whether to go on.
    fn take_jobs(&mut self) -> bool {
        if self.running.is_empty() {
            match self.jobs.blocking_recv() {
                Some((request, job)) => self.admit(request, job),
                None => return false,
            }
        }
        while let Ok((request, job)) = self.jobs.try_recv() {
            self.admit(request, job);
        }
        true
    }

    fn admit(&mut self, request: TokenRequest, job: Job) {
        let prompt_tokens = request.prompt.len();
        match self.scheduler.admit(request) {
            Ok(id) => {
                let running = Running {
                    job,
                    prompt_tokens,
                    cached_tokens: None,
                    last_token: None,
                    answer_tokens: 0,
                };
                self.running.insert(id, running);
            }
            Err(error) => {
                self.metrics.failures.inc();
                // Nobody may be listening any more.
                let _ = job.updates.send(Update::Failed(error.to_string()));
            }
        }
    }

    /// Ends jobs whose reader is gone, wherever they stand: the frontend found a stop string, or its client went away. It does not say which.
    fn cancel_unread(&mut self) {
        let (scheduler, metrics) = (&mut self.scheduler, &self.metrics);
        self.running.retain(|&id, running| {
            let is_read = !running.job.updates.is_closed();
            if !is_read {
                scheduler.cancel(id);
                metrics.ended_by_frontend.inc();
                metrics
                    .request_s
                    .observe(running.job.submitted.elapsed().as_secs_f64());
            }
            is_read
        });
    }

    /// Counts what a step says as a whole.
    fn count(&mut self, report: &StepReport) {
        let metrics = &self.metrics;
        metrics.preemptions.inc_by(report.num_preempted as u64);
        for (id, cached_tokens) in &report.begun {
            if let Some(running) = self.running.get_mut(id)
                && running.cached_tokens.is_none()
                && !running.job.is_probe
            {
                running.cached_tokens = Some(*cached_tokens);
                metrics.prompt_tokens.inc_by(running.prompt_tokens as u64);
                metrics.cache_queries.inc_by(running.prompt_tokens as u64);
                metrics.cache_hits.inc_by(*cached_tokens as u64);
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Token { id, token } => self.deliver_token(id, token.token, token.logprobs),
            Event::Finished { id, reason } => self.end(id, reason),
            Event::Failed { id, error } => self.fail(id, &error),
            Event::Rows { .. } => {}
        }
    }

    /// A fault of one sequence is its client's to hear. A device that failed ends the worker: it would fail the next request too, and the
    /// frontend sends what ran here to another worker when the connection is lost.
    fn fail(&mut self, id: SequenceId, error: &EngineError) {
        if matches!(error, EngineError::Device(_)) {
            tracing::error!(%error, "the device failed: the worker ends");
            std::process::exit(1);
        }
        if let Some(running) = self.running.remove(&id) {
            self.metrics.failures.inc();
            tracing::error!(%error, "a request failed");
            // Nobody may be listening any more.
            let _ = running.job.updates.send(Update::Failed(error.to_string()));
        }
    }

    fn deliver_token(&mut self, id: SequenceId, token: u32, logprobs: Option<Logprobs>) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let now = Instant::now();
        running.answer_tokens += 1;
        match (running.last_token.replace(now), running.job.is_probe) {
            (_, true) => {}
            (Some(last), false) => self.metrics.inter_token_s.observe((now - last).as_secs_f64()),
            (None, false) => {
                let waited = now - running.job.submitted;
                self.metrics.first_token_s.observe(waited.as_secs_f64());
            }
        }
        self.metrics.generated_tokens.inc();
        // A reader that is gone is found before the next step.
        let _ = running.job.updates.send(Update::Token { token, logprobs });
        let job = &running.job;
        if running.answer_tokens >= job.min_tokens && job.last_tokens.contains(&token) {
            self.scheduler.cancel(id);
            self.end(id, FinishReason::Eos);
        }
    }

    fn end(&mut self, id: SequenceId, reason: FinishReason) {
        let Some(running) = self.running.remove(&id) else {
            return;
        };
        if !running.job.is_probe {
            self.metrics.count_success(reason);
            let took = running.job.submitted.elapsed();
            self.metrics.request_s.observe(took.as_secs_f64());
        }
        // Nobody may be listening any more.
        let _ = running.job.updates.send(Update::Ended {
            reason,
            cached_tokens: running.cached_tokens.unwrap_or(0),
        });
    }

    /// Tells of the load, the router where it changed.
    fn tell_load(&mut self) {
        let (held, all) = (
            self.scheduler.num_held_pages(),
            self.scheduler.session().num_pages(),
        );
        let usage = held as f64 / all.max(1) as f64;
        self.metrics.num_running.set(self.scheduler.num_running() as i64);
        self.metrics.num_waiting.set(self.scheduler.num_waiting() as i64);
        self.metrics.cache_usage.set(usage);
        let Some(publisher) = self.publishers.load.get() else {
            return;
        };
        if self.published_pages.replace(held) != Some(held) {
            let snapshot = ComponentSnapshot {
                kv_used_blocks: held as u64,
                kv_total_blocks: all as u64,
                gpu_cache_usage: usage as f32,
                kv_cache_hit_rate: self.metrics.cache_hit_rate(),
                dp_rank: 0,
            };
            publisher.publish(0, snapshot);
        }
    }
}
