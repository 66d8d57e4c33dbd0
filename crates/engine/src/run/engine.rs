//! Prompts in, texts out: the scheduler's sequences with their texts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use dualgrain_device::Device;
use dualgrain_device::sampling::{ChosenToken, Logprobs};

use super::clock::Clock;
use super::limits::SessionLimits;
use super::request::{BatchGeneration, GenerateError, Generation, Request, Timings};
use super::scheduler::{self, FinishReason, Scheduler, SequenceId, StepReport, TokenRequest};
use super::session::Session;
use super::text_of_sequence::TextOfSequence;
use crate::text::tokenizer::Tokenizer;
use crate::{EngineError, Model};

/// What happened to a request in a step.
#[derive(Debug, Clone)]
pub enum Event {
    /// A token was generated; `text` is what it made certain, often nothing.
    Token {
        /// The request's sequence.
        id: SequenceId,
        /// The token.
        token: u32,
        /// Text that follows what was given out before.
        text: String,
        /// Where the request asked for them.
        logprobs: Option<Logprobs>,
    },
    /// The request is done.
    Finished {
        /// The request's sequence.
        id: SequenceId,
        /// Text that was held back until the end.
        rest: String,
        /// Everything that was generated.
        generation: Generation,
    },
    /// The request can not go on.
    Failed {
        /// The request's sequence.
        id: SequenceId,
        /// Why.
        error: GenerateError,
    },
}

impl Event {
    fn id(&self) -> SequenceId {
        match self {
            Self::Token { id, .. } | Self::Finished { id, .. } | Self::Failed { id, .. } => *id,
        }
    }
}

/// Receives each piece of text with the index of its request; `Break` cancels that request.
pub type OnText<'a> = dyn FnMut(usize, &str) -> ControlFlow<()> + 'a;

/// A model that serves requests: one for a prompt on the command line, many for a server.
pub struct Engine<D: Device> {
    scheduler: Scheduler<D>,
    tokenizer: Arc<Tokenizer>,
    texts: BTreeMap<SequenceId, TextOfSequence>,
    clock: Clock,
    /// Events of requests outside a batch that came while it ran; the next step gives them out.
    queued: Vec<Event>,
    /// What the last step said, without its events.
    last_step: StepReport,
}

impl<D: Device> Engine<D> {
    /// An engine with buffers and a KV cache for `limits`.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn new(
        model: Arc<Model<D>>,
        tokenizer: Arc<Tokenizer>,
        limits: SessionLimits,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            scheduler: Scheduler::new(Session::new(model, limits)?),
            tokenizer,
            texts: BTreeMap::new(),
            clock: Clock::default(),
            queued: Vec::new(),
            last_step: StepReport::default(),
        })
    }

    /// As [`Scheduler::prepare`].
    ///
    /// # Errors
    /// The device failed.
    pub fn prepare(&mut self) -> Result<(), EngineError> {
        self.scheduler.prepare()
    }

    /// Takes a request over; [`Self::step`] runs it.
    ///
    /// # Errors
    /// A prompt that is empty or does not fit, parameters outside their ranges.
    pub fn admit(&mut self, request: Request) -> Result<SequenceId, GenerateError> {
        self.check(&request)?;
        let Request {
            prompt,
            options,
            keep,
        } = request;
        let text = TextOfSequence::new(&self.tokenizer, &prompt, options.stop)?;
        let end_tokens = match options.ignore_eos {
            true => Vec::new(),
            false => self.end_tokens(),
        };
        let id = self.scheduler.admit(TokenRequest {
            prompt,
            sampling: options.sampling,
            max_tokens: options.max_tokens,
            end_tokens,
            keep,
            score_from: None,
            constraint: options.constraint,
        })?;
        self.texts.insert(id, text);
        Ok(id)
    }

    /// Ends a request before its time; returns what it has so far, without what is held back. No event tells of it from then
    /// on. `None` for a request that ended before, also where the next step has still to tell of its end.
    pub fn cancel(&mut self, id: SequenceId) -> Option<Generation> {
        self.scheduler.cancel(id);
        let text = self.texts.remove(&id)?;
        self.queued.retain(|event| event.id() != id);
        Some(text.into_generation(FinishReason::Cancelled))
    }

    /// Runs one step for all requests.
    pub fn step(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.queued);
        events.extend(self.run_step(&mut Clock::default()));
        events
    }

    /// One step, also counted by `clock`.
    fn run_step(&mut self, clock: &mut Clock) -> Vec<Event> {
        let started = Instant::now();
        let mut report = self.scheduler.step();
        let elapsed = started.elapsed();
        self.clock.add(elapsed, &report);
        clock.add(elapsed, &report);
        let told = std::mem::take(&mut report.events);
        self.last_step = report;
        let mut events = Vec::with_capacity(told.len());
        for event in told {
            self.add_text(event, &mut events);
        }
        events
    }

    /// Whether no request is left, and no event to give out.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.queued.is_empty()
    }

    /// Times of all steps so far.
    pub fn timings(&self) -> Timings {
        self.clock.timings()
    }

    /// What the last step did. Its events are empty: they were given out with their texts.
    pub fn last_step(&self) -> &StepReport {
        &self.last_step
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model<D>> {
        self.scheduler.session().model()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Tokens that end an answer: those of config.json and generation_config.json, and what the tokenizer's own files call its end.
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut tokens = self.model().config().eos_tokens.clone();
        let own = self.tokenizer.eos_id();
        tokens.extend(own.filter(|token| !tokens.contains(token)));
        tokens
    }

    /// The scheduler underneath.
    pub fn scheduler(&self) -> &Scheduler<D> {
        &self.scheduler
    }

    /// Generates for one request and returns when it is done; see [`Self::generate_batch`].
    ///
    /// # Errors
    /// As [`Self::generate_batch`].
    pub fn generate(
        &mut self,
        request: Request,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(Generation, Timings), GenerateError> {
        let batch = self.generate_batch(vec![request], &mut |_, text| on_text(text));
        let mut batch = batch.map_err(|error| match error {
            GenerateError::InBatch { error, .. } => *error,
            error => error,
        })?;
        let generation = batch.generations.pop();
        let generation = generation.unwrap_or_else(|| unreachable!("one request, one generation"));
        Ok((generation, batch.timings))
    }

    /// Generates for all requests and returns when they are done. Requests that were admitted before run along: the next
    /// [`Self::step`] gives out their events, and the timings hold what the steps did for them too.
    ///
    /// # Errors
    /// A request that can not begin (nothing is run then); the first one that failed, when all are done.
    pub fn generate_batch(
        &mut self,
        requests: Vec<Request>,
        on_text: &mut OnText<'_>,
    ) -> Result<BatchGeneration, GenerateError> {
        let in_batch = |request: usize| {
            move |error| GenerateError::InBatch {
                request,
                error: Box::new(error),
            }
        };
        for (index, request) in requests.iter().enumerate() {
            self.check(request).map_err(in_batch(index))?;
        }
        let mut clock = Clock::default();
        let mut batch = Batch::default();
        for (index, request) in requests.into_iter().enumerate() {
            match self.admit(request) {
                Ok(id) => batch.ids.push(id),
                Err(error) => {
                    batch.ids.iter().for_each(|&id| _ = self.cancel(id));
                    return Err(in_batch(index)(error));
                }
            }
        }
        while !batch.is_done() && !self.scheduler.is_idle() {
            for event in self.run_step(&mut clock) {
                self.take_event(event, &mut batch, on_text);
            }
        }
        batch.finish(clock.timings())
    }

    /// Gives an event to the batch, or keeps it for the next step where it belongs to another request.
    fn take_event(&mut self, event: Event, batch: &mut Batch, on_text: &mut OnText<'_>) {
        if batch.index_of(event.id()).is_none() {
            self.queued.push(event);
            return;
        }
        if let Some(cancelled) = batch.take(event, on_text)
            && let Some(generation) = self.cancel(cancelled)
        {
            batch.done.insert(cancelled, Ok(generation));
        }
    }

    fn check(&self, request: &Request) -> Result<(), GenerateError> {
        let context_tokens = self.scheduler.session().limits().context_tokens;
        if request.prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if let Some(index) = request.options.stop.iter().position(String::is_empty) {
            return Err(GenerateError::EmptyStop { index });
        }
        if request.prompt.len() > context_tokens {
            return Err(GenerateError::PromptTooLong {
                prompt_tokens: request.prompt.len(),
                context_tokens,
            });
        }
        Ok(request.options.sampling.check().map_err(EngineError::from)?)
    }

    /// Adds a scheduler's event with its text to `events`; nothing where the text ended before.
    fn add_text(&mut self, event: scheduler::Event, events: &mut Vec<Event>) {
        match event {
            scheduler::Event::Token { id, token } => self.add_token(id, token, events),
            scheduler::Event::Rows { .. } => {}
            scheduler::Event::Finished { id, reason } => self.finish(id, reason, events),
            scheduler::Event::Failed { id, error } => {
                if self.texts.remove(&id).is_some() {
                    let error = GenerateError::Engine(error);
                    events.push(Event::Failed { id, error });
                }
            }
        }
    }

    fn add_token(&mut self, id: SequenceId, chosen: ChosenToken, events: &mut Vec<Event>) {
        let Some(text_so_far) = self.texts.get_mut(&id) else {
            return;
        };
        let ChosenToken { token, logprobs } = chosen;
        match text_so_far.push(token) {
            Ok((text, stopped)) => {
                events.push(Event::Token {
                    id,
                    token,
                    text,
                    logprobs,
                });
                if stopped {
                    self.stop(id, events);
                }
            }
            Err(error) => self.fail(id, error.into(), events),
        }
    }

    fn finish(&mut self, id: SequenceId, reason: FinishReason, events: &mut Vec<Event>) {
        let Some(text) = self.texts.get_mut(&id) else {
            return;
        };
        match text.finish() {
            Ok((rest, stopped)) => {
                let reason = if stopped { FinishReason::StopString } else { reason };
                self.end(id, reason, rest, events);
            }
            Err(error) => self.fail(id, error.into(), events),
        }
    }

    /// A stop string came: the scheduler, which knows no text, goes on no longer.
    fn stop(&mut self, id: SequenceId, events: &mut Vec<Event>) {
        self.scheduler.cancel(id);
        self.end(id, FinishReason::StopString, String::new(), events);
    }

    fn end(&mut self, id: SequenceId, reason: FinishReason, rest: String, events: &mut Vec<Event>) {
        if let Some(text) = self.texts.remove(&id) {
            let generation = text.into_generation(reason);
            events.push(Event::Finished { id, rest, generation });
        }
    }

    fn fail(&mut self, id: SequenceId, error: GenerateError, events: &mut Vec<Event>) {
        self.scheduler.cancel(id);
        self.texts.remove(&id);
        events.push(Event::Failed { id, error });
    }
}

/// The requests of a batch and what became of them.
#[derive(Default)]
struct Batch {
    ids: Vec<SequenceId>,
    done: BTreeMap<SequenceId, Result<Generation, GenerateError>>,
}

impl Batch {
    /// Takes an event of one of the requests; returns the request when its reader breaks it off.
    fn take(&mut self, event: Event, on_text: &mut OnText<'_>) -> Option<SequenceId> {
        match event {
            Event::Token { id, text, .. } => {
                let is_read = text.is_empty() || on_text(self.index_of(id)?, &text).is_continue();
                (!is_read).then_some(id)
            }
            Event::Finished {
                id,
                rest,
                mut generation,
            } => {
                if !rest.is_empty() && on_text(self.index_of(id)?, &rest).is_break() {
                    generation.finish_reason = FinishReason::Cancelled;
                }
                self.done.entry(id).or_insert(Ok(generation));
                None
            }
            Event::Failed { id, error } => {
                self.done.entry(id).or_insert(Err(error));
                None
            }
        }
    }

    fn is_done(&self) -> bool {
        self.done.len() == self.ids.len()
    }

    fn index_of(&self, id: SequenceId) -> Option<usize> {
        self.ids.iter().position(|&of_batch| of_batch == id)
    }

    fn finish(mut self, timings: Timings) -> Result<BatchGeneration, GenerateError> {
        let mut generations = Vec::with_capacity(self.ids.len());
        for (request, id) in self.ids.iter().enumerate() {
            match self.done.remove(id) {
                Some(Ok(generation)) => generations.push(generation),
                Some(Err(error)) => {
                    let error = Box::new(error);
                    return Err(GenerateError::InBatch { request, error });
                }
                None => {}
            }
        }
        Ok(BatchGeneration { generations, timings })
    }
}
