//! The generation loop: prompts in, tokens and text out, for one sequence or many in the same ragged steps.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use dualgrain_device::Device;
use serde::Serialize;
use thiserror::Error;

use crate::run::sampler::{Sampler, SamplerError, SamplingParams};
use crate::text::StopMatcher;
use crate::text::detokenizer::DecodeStream;
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::{EngineError, Session};

/// What to generate and when to end.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// End after this many tokens; `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// End before any of these texts. They may begin and end inside tokens.
    pub stop: Vec<String>,
    /// Go on after the model's end tokens (for measurements).
    pub ignore_eos: bool,
    /// How a token is chosen.
    pub sampling: SamplingParams,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: None,
            stop: Vec::new(),
            ignore_eos: false,
            sampling: SamplingParams::GREEDY,
        }
    }
}

/// A prompt and what to do with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Tokens to run before the first new one, not empty.
    pub prompt: Vec<u32>,
    /// What to generate.
    pub options: GenerateOptions,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model gave an end token.
    Eos,
    /// A stop string came.
    StopString,
    /// `max_tokens` were generated.
    MaxTokens,
    /// The sequence is as long as the session allows.
    Context,
    /// The caller broke off.
    Cancelled,
}

/// What was generated for one request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// The tokens, without an end token. A stop string's tokens are among them, its text is not in `text`.
    pub tokens: Vec<u32>,
    /// The text, as it was given to the callback.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Where the time went. A step with prompt tokens counts as prefill, any other as decoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Time of the steps that ran them.
    pub prefill_time_s: f64,
    /// Prompt tokens by that time.
    pub prefill_tokens_per_s: f64,
    /// Tokens sampled in the other steps (the first token of a prompt belongs to its prefill).
    pub decode_tokens: usize,
    /// Time of the other steps.
    pub decode_time_s: f64,
    /// Those tokens by that time.
    pub decode_tokens_per_s: f64,
}

/// Results of a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchGeneration {
    /// One for each request, in order.
    pub generations: Vec<Generation>,
    /// Of all requests together.
    pub timings: Timings,
}

/// Why nothing could be generated.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// A prompt without tokens.
    #[error("request {request}: the prompt is empty: expected at least one token")]
    EmptyPrompt {
        /// Index of the request.
        request: usize,
    },
    /// A prompt that does not fit.
    #[error(
        "request {request}: the prompt has {prompt_tokens} tokens{}, but the context holds {context_tokens}: shorten \
         it or ask for a longer context", if *.held_tokens > 0 { format!(" after {held_tokens} in the cache") } else { String::new() }
    )]
    PromptTooLong {
        /// Index of the request.
        request: usize,
        /// Its tokens.
        prompt_tokens: usize,
        /// Tokens the sequence held before.
        held_tokens: usize,
        /// Tokens a sequence may have.
        context_tokens: usize,
    },
    /// An empty stop string would end every text at its start.
    #[error("request {request}: stop string {index} is empty: expected at least one character")]
    EmptyStop {
        /// Index of the request.
        request: usize,
        /// Index of the stop string.
        index: usize,
    },
    /// More requests than the session has sequences.
    #[error("{got} requests at once, but the session was made for {num_sequences}")]
    TooManyRequests {
        /// Requests.
        got: usize,
        /// Sequences.
        num_sequences: usize,
    },
    /// The model could not run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Tokens without text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// No token could be chosen, or a sampling parameter is out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

/// Receives each piece of text with the index of its request; `Break` cancels that request.
pub type OnText<'a> = dyn FnMut(usize, &str) -> ControlFlow<()> + 'a;

/// Generates for one request in sequence 0; see [`generate_batch`].
///
/// # Errors
/// As [`generate_batch`].
pub fn generate<D: Device>(
    session: &mut Session<D>,
    tokenizer: &Tokenizer,
    request: &Request,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<(Generation, Timings), GenerateError> {
    let requests = std::slice::from_ref(request);
    let mut batch = generate_batch(session, tokenizer, requests, &mut |_, text| on_text(text))?;
    let generation = batch
        .generations
        .pop()
        .unwrap_or_else(|| unreachable!("one request, one generation"));
    Ok((generation, batch.timings))
}

/// Generates for request i in sequence i of the session, after what the sequence already holds (reset it to begin
/// anew). A long prompt runs in several steps; sequences that decode go first in every step. Afterwards a sequence
/// holds its prompt and all generated tokens but the last.
///
/// # Errors
/// A request that can not begin (nothing is run then), a model that fails, or logits that are not numbers.
pub fn generate_batch<D: Device>(
    session: &mut Session<D>,
    tokenizer: &Tokenizer,
    requests: &[Request],
    on_text: &mut OnText<'_>,
) -> Result<BatchGeneration, GenerateError> {
    let mut sequences = begin(session, tokenizer, requests)?;
    let mut clock = Clock::default();
    let mut plan = StepPlan::default();
    while plan.fill(&sequences, session.limits().step_tokens) {
        let started = Instant::now();
        plan.run(session, &sequences)?;
        let num_prompt_tokens = plan.num_prompt_tokens(&sequences);
        let num_sampled = plan.finish(session, &mut sequences, on_text)?;
        clock.step(started.elapsed(), num_prompt_tokens, num_sampled);
    }
    Ok(BatchGeneration {
        generations: sequences.into_iter().map(Sequence::into_generation).collect(),
        timings: clock.timings(),
    })
}

fn begin<'a, D: Device>(
    session: &Session<D>,
    tokenizer: &'a Tokenizer,
    requests: &'a [Request],
) -> Result<Vec<Sequence<'a>>, GenerateError> {
    let limits = session.limits();
    if requests.len() > limits.num_sequences {
        return Err(GenerateError::TooManyRequests {
            got: requests.len(),
            num_sequences: limits.num_sequences,
        });
    }
    let begin_one = |(idx, request): (usize, &'a Request)| {
        check_request(idx, request, session.len(idx), limits.context_tokens)?;
        Sequence::new(tokenizer, request)
    };
    requests.iter().enumerate().map(begin_one).collect()
}

fn check_request(
    request: usize,
    Request { prompt, options }: &Request,
    held_tokens: usize,
    context_tokens: usize,
) -> Result<(), GenerateError> {
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt { request });
    }
    if let Some(index) = options.stop.iter().position(String::is_empty) {
        return Err(GenerateError::EmptyStop { request, index });
    }
    if held_tokens + prompt.len() > context_tokens {
        return Err(GenerateError::PromptTooLong {
            request,
            prompt_tokens: prompt.len(),
            held_tokens,
            context_tokens,
        });
    }
    Ok(())
}

/// A request under way.
struct Sequence<'a> {
    options: &'a GenerateOptions,
    /// Tokens to run: the prompt, then the last sampled token alone.
    pending: Vec<u32>,
    /// How many of `pending` have been run.
    num_run: usize,
    in_prompt: bool,
    sampler: Sampler,
    stream: Option<DecodeStream<'a>>,
    stop: StopMatcher<'a>,
    tokens: Vec<u32>,
    text: String,
    finish_reason: Option<FinishReason>,
}

impl<'a> Sequence<'a> {
    fn new(tokenizer: &'a Tokenizer, request: &'a Request) -> Result<Self, GenerateError> {
        let options = &request.options;
        let mut stream = tokenizer.stream(true);
        stream.follow(&request.prompt)?;
        Ok(Self {
            options,
            pending: request.prompt.clone(),
            num_run: 0,
            in_prompt: true,
            sampler: Sampler::new(options.sampling)?,
            stream: Some(stream),
            stop: StopMatcher::new(&options.stop),
            tokens: Vec::new(),
            text: String::new(),
            finish_reason: (options.max_tokens == Some(0)).then_some(FinishReason::MaxTokens),
        })
    }

    fn num_pending(&self) -> usize {
        match self.finish_reason {
            None => self.pending.len() - self.num_run,
            Some(_) => 0,
        }
    }

    /// Takes the token sampled after the last pending one; `has_room` says whether it could be run.
    fn accept(
        &mut self,
        token: u32,
        eos_tokens: &[u32],
        has_room: bool,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), GenerateError> {
        if eos_tokens.contains(&token) && !self.options.ignore_eos {
            return self.end(FinishReason::Eos, emit);
        }
        self.in_prompt = false;
        self.pending.clear();
        self.pending.push(token);
        self.num_run = 0;
        self.tokens.push(token);
        let piece = match &mut self.stream {
            Some(stream) => stream.push(token)?,
            None => String::new(),
        };
        let stopped = self.stop.push(&piece);
        self.emit_ready(emit);
        match (stopped, self.options.max_tokens) {
            _ if self.finish_reason.is_some() => Ok(()),
            (true, _) => {
                self.finish_reason = Some(FinishReason::StopString);
                Ok(())
            }
            (false, Some(max_tokens)) if self.tokens.len() >= max_tokens => {
                self.end(FinishReason::MaxTokens, emit)
            }
            _ if !has_room => self.end(FinishReason::Context, emit),
            _ => Ok(()),
        }
    }

    /// Gives out what was held back.
    fn end(
        &mut self,
        reason: FinishReason,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), GenerateError> {
        self.finish_reason = Some(reason);
        let rest = self.stream.take().map(DecodeStream::finish).transpose()?;
        if self.stop.push(&rest.unwrap_or_default()) {
            self.finish_reason = Some(FinishReason::StopString);
        } else {
            self.stop.release();
        }
        self.emit_ready(emit);
        Ok(())
    }

    fn emit_ready(&mut self, emit: &mut dyn FnMut(&str) -> ControlFlow<()>) {
        let ready = self.stop.ready();
        if !ready.is_empty() {
            self.text.push_str(ready);
            if emit(ready).is_break() {
                self.finish_reason = Some(FinishReason::Cancelled);
            }
        }
        self.stop.clear_ready();
    }

    fn into_generation(self) -> Generation {
        Generation {
            tokens: self.tokens,
            text: self.text,
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
        }
    }
}

/// Which sequences take part in a step, and with how many tokens. Kept between steps for its buffers.
#[derive(Default)]
struct StepPlan {
    /// (sequence, tokens it runs).
    parts: Vec<(usize, usize)>,
    /// Step rows whose logits are sampled, and their sequences.
    rows: Vec<u32>,
    sampled: Vec<usize>,
    logits: Vec<f32>,
}

impl StepPlan {
    /// Chooses the parts; false if nothing is left to do.
    fn fill(&mut self, sequences: &[Sequence<'_>], step_tokens: usize) -> bool {
        self.parts.clear();
        let mut room = step_tokens;
        for prompts in [false, true] {
            for (idx, sequence) in sequences
                .iter()
                .enumerate()
                .filter(|(_, s)| s.in_prompt == prompts)
            {
                let num_tokens = sequence.num_pending().min(room);
                if num_tokens > 0 {
                    self.parts.push((idx, num_tokens));
                    room -= num_tokens;
                }
            }
        }
        !self.parts.is_empty()
    }

    fn num_prompt_tokens(&self, sequences: &[Sequence<'_>]) -> usize {
        self.parts
            .iter()
            .filter(|(idx, _)| sequences[*idx].in_prompt)
            .map(|(_, num_tokens)| num_tokens)
            .sum()
    }

    fn run<D: Device>(
        &mut self,
        session: &mut Session<D>,
        sequences: &[Sequence<'_>],
    ) -> Result<(), EngineError> {
        let tokens = |&(idx, num_tokens): &(usize, usize)| {
            let sequence = &sequences[idx];
            (
                idx,
                &sequence.pending[sequence.num_run..sequence.num_run + num_tokens],
            )
        };
        let batch: Vec<(usize, &[u32])> = self.parts.iter().map(tokens).collect();
        session.run(&batch)
    }

    /// Samples for every sequence whose pending tokens have all been run; returns for how many.
    fn finish<D: Device>(
        &mut self,
        session: &mut Session<D>,
        sequences: &mut [Sequence<'_>],
        on_text: &mut OnText<'_>,
    ) -> Result<usize, GenerateError> {
        self.rows.clear();
        self.sampled.clear();
        let mut num_rows = 0;
        for &(idx, num_tokens) in &self.parts {
            let sequence = &mut sequences[idx];
            sequence.num_run += num_tokens;
            num_rows += num_tokens as u32;
            if sequence.num_pending() == 0 {
                self.rows.push(num_rows - 1);
                self.sampled.push(idx);
            }
        }
        if self.rows.is_empty() {
            return Ok(0);
        }
        self.download(session)?;
        let model = session.model().clone();
        let vocab_size = model.config().vocab_size;
        for (&idx, logits) in self.sampled.iter().zip(self.logits.chunks_exact(vocab_size)) {
            let sequence = &mut sequences[idx];
            let token = sequence.sampler.sample(logits)?;
            let has_room = session.len(idx) < session.limits().context_tokens;
            sequence.accept(token, &model.config().eos_tokens, has_room, &mut |text| {
                on_text(idx, text)
            })?;
        }
        Ok(self.sampled.len())
    }

    /// `logits` [rows, vocab] of the rows to sample.
    fn download<D: Device>(&mut self, session: &mut Session<D>) -> Result<(), EngineError> {
        let model = session.model().clone();
        self.logits
            .resize(self.rows.len() * model.config().vocab_size, 0.0);
        let matrix = session.logits(&self.rows)?;
        model
            .device()
            .download(matrix, 0..self.rows.len(), &mut self.logits);
        Ok(())
    }
}

#[derive(Default)]
struct Clock {
    prompt_tokens: usize,
    prefill: Duration,
    decode_tokens: usize,
    decode: Duration,
}

impl Clock {
    fn step(&mut self, elapsed: Duration, num_prompt_tokens: usize, num_sampled: usize) {
        if num_prompt_tokens > 0 {
            self.prompt_tokens += num_prompt_tokens;
            self.prefill += elapsed;
        } else {
            self.decode_tokens += num_sampled;
            self.decode += elapsed;
        }
    }

    fn timings(&self) -> Timings {
        let rate = |tokens: usize, time: Duration| match time.as_secs_f64() {
            time_s if time_s > 0.0 => tokens as f64 / time_s,
            _ => 0.0,
        };
        Timings {
            prompt_tokens: self.prompt_tokens,
            prefill_time_s: self.prefill.as_secs_f64(),
            prefill_tokens_per_s: rate(self.prompt_tokens, self.prefill),
            decode_tokens: self.decode_tokens,
            decode_time_s: self.decode.as_secs_f64(),
            decode_tokens_per_s: rate(self.decode_tokens, self.decode),
        }
    }
}
