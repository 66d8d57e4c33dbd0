//! Requests under way. Whoever waits for one runs steps for all: requests of several threads share steps, and each finds its events in a
//! box of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use dualgrain::{AnyDevice, Engine, Event, FinishReason, Generation, Logprobs, Request, SequenceId};
use pyo3::prelude::*;

use crate::errors::{Cancelled, broken, exception};
use crate::watch::{self, Watch};

/// The engine of a model, and the events that nobody has fetched.
struct Shared {
    engine: Engine<AnyDevice>,
    boxes: HashMap<SequenceId, VecDeque<Event>>,
}

impl Shared {
    /// Takes all requests over, or none.
    fn admit(&mut self, requests: Vec<Request>) -> PyResult<Vec<SequenceId>> {
        let mut ids = Vec::with_capacity(requests.len());
        for (index, request) in requests.into_iter().enumerate() {
            match self.engine.admit(request) {
                Ok(id) => {
                    self.boxes.insert(id, VecDeque::new());
                    ids.push(id);
                }
                Err(error) => {
                    self.cancel(&ids);
                    return Err(exception(dualgrain::engine::GenerateError::InBatch {
                        request: index,
                        error: Box::new(error),
                    }));
                }
            }
        }
        Ok(ids)
    }

    fn cancel(&mut self, ids: &[SequenceId]) {
        for id in ids {
            self.engine.cancel(*id);
            self.boxes.remove(id);
        }
    }

    fn step(&mut self) {
        for event in self.engine.step() {
            let (Event::Token { id, .. } | Event::Finished { id, .. } | Event::Failed { id, .. }) = &event;
            if let Some(events) = self.boxes.get_mut(id) {
                events.push_back(event);
            }
        }
    }
}

/// The way to an engine. Who wants in while another runs step after step waits for one step, not for the end of it all: it holds the turn
/// that the other needs next.
pub struct Door {
    turn: Mutex<()>,
    shared: Mutex<Shared>,
}

impl Door {
    pub fn new(engine: Engine<AnyDevice>) -> Self {
        Self {
            turn: Mutex::new(()),
            shared: Mutex::new(Shared {
                engine,
                boxes: HashMap::new(),
            }),
        }
    }

    fn enter(&self) -> PyResult<MutexGuard<'_, Shared>> {
        let _turn = lock(&self.turn)?;
        lock(&self.shared)
    }
}

/// The lock of what no call has broken.
fn lock<T>(mutex: &Mutex<T>) -> PyResult<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| broken())
}

/// Log-probability of a token, and of the likeliest ones.
type TokenLogprobs = (f32, Vec<(u32, f32)>);

/// What came of a request: its index, text, and its token with log-probabilities where the text is not what was held back until the end.
type Piece = (usize, String, Option<u32>, Option<TokenLogprobs>);

/// Text, tokens, why it ended, log-probabilities of the tokens.
type Finished = (String, Vec<u32>, &'static str, Option<Vec<TokenLogprobs>>);

/// One request of several.
struct Part {
    id: SequenceId,
    logprobs: Option<Vec<TokenLogprobs>>,
    generation: Option<Generation>,
}

/// What is known of the requests.
struct State {
    parts: Vec<Part>,
    pieces: VecDeque<Piece>,
    /// Whether pieces are kept for a reader.
    streams: bool,
    closed: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.closed || self.parts.iter().all(|part| part.generation.is_some())
    }

    /// Fetches what happened, and runs a step where nothing did.
    fn go_on(&mut self, door: &Door) -> PyResult<()> {
        let mut shared = door.enter()?;
        if !self.fetch(&mut shared)? {
            shared.step();
            self.fetch(&mut shared)?;
        }
        Ok(())
    }

    /// Whether anything had happened.
    fn fetch(&mut self, shared: &mut Shared) -> PyResult<bool> {
        let mut happened = false;
        for index in 0..self.parts.len() {
            let id = self.parts[index].id;
            let Some(events) = shared.boxes.get_mut(&id) else {
                continue;
            };
            for event in std::mem::take(events) {
                happened = true;
                if let Err(error) = self.take(index, event) {
                    self.close(shared);
                    return Err(error);
                }
            }
            if self.parts[index].generation.is_some() {
                shared.boxes.remove(&id);
            }
        }
        Ok(happened)
    }

    fn take(&mut self, index: usize, event: Event) -> PyResult<()> {
        let part = &mut self.parts[index];
        match event {
            Event::Token {
                token,
                text,
                logprobs,
                ..
            } => {
                let logprobs = logprobs.map(|Logprobs { chosen, top }| (chosen, top));
                if let (Some(all), Some(logprobs)) = (&mut part.logprobs, &logprobs) {
                    all.push(logprobs.clone());
                }
                self.keep((index, text, Some(token), logprobs));
            }
            Event::Finished { rest, generation, .. } => {
                part.generation = Some(generation);
                if !rest.is_empty() {
                    self.keep((index, rest, None, None));
                }
            }
            Event::Failed { error, .. } => {
                return Err(exception(dualgrain::engine::GenerateError::InBatch {
                    request: index,
                    error: Box::new(error),
                }));
            }
        }
        Ok(())
    }

    fn keep(&mut self, piece: Piece) {
        if self.streams {
            self.pieces.push_back(piece);
        }
    }

    fn close(&mut self, shared: &mut Shared) {
        let left = self.parts.iter().filter(|part| part.generation.is_none());
        let left: Vec<SequenceId> = left.map(|part| part.id).collect();
        shared.cancel(&left);
        self.closed = true;
    }
}

/// Requests under way. What is left of them ends with this object.
#[pyclass(frozen, module = "dualgrain._native")]
pub struct Running {
    door: Arc<Door>,
    state: Mutex<State>,
}

impl Running {
    /// Admits the requests; `streams` keeps the pieces of their texts for a reader.
    pub fn start(door: &Arc<Door>, requests: Vec<Request>, streams: bool) -> PyResult<Self> {
        let wants: Vec<bool> = requests
            .iter()
            .map(|request| request.options.sampling.num_logprobs.is_some())
            .collect();
        let ids = door.enter()?.admit(requests)?;
        let part = |(id, wants): (SequenceId, bool)| Part {
            id,
            logprobs: wants.then(Vec::new),
            generation: None,
        };
        let state = State {
            parts: ids.into_iter().zip(wants).map(part).collect(),
            pieces: VecDeque::new(),
            streams,
            closed: false,
        };
        Ok(Self {
            door: Arc::clone(door),
            state: Mutex::new(state),
        })
    }

    /// Runs steps until `ready` gives something.
    fn until<T>(&self, watch: &Watch, mut ready: impl FnMut(&mut State) -> Option<T>) -> PyResult<T> {
        loop {
            {
                let mut state = lock(&self.state)?;
                if let Some(ready) = ready(&mut state) {
                    return Ok(ready);
                }
                state.go_on(&self.door)?;
            }
            watch.look()?;
        }
    }

    /// Ends the requests where something failed.
    fn or_end<T>(&self, result: PyResult<T>) -> PyResult<T> {
        if result.is_err() {
            // The first error is the one to tell.
            _ = self.end();
        }
        result
    }

    fn end(&self) -> PyResult<()> {
        lock(&self.state)?.close(&mut *self.door.enter()?);
        Ok(())
    }
}

#[pymethods]
impl Running {
    /// The next piece of any request; `None` when all are done. Whatever ends this early ends the requests too.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Piece>> {
        watch::run(py, None, |watch| {
            let next = self.until(watch, |state| match state.pieces.pop_front() {
                Some(piece) => Some(Some(piece)),
                None => state.is_done().then_some(None),
            });
            self.or_end(next)
        })
    }

    /// Returns when all requests are done. Whatever ends this early ends them too.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        watch::run(py, None, |watch| {
            let done = self.until(watch, |state| state.is_done().then_some(()));
            self.or_end(done)
        })
    }

    /// Ends the requests that are not done.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        watch::run(py, None, |_| self.end())
    }

    /// What became of request `index`, `None` while it is under way.
    fn finished(&self, py: Python<'_>, index: usize) -> PyResult<Option<Finished>> {
        watch::run(py, None, |_| {
            let state = lock(&self.state)?;
            let part = state.parts.get(index);
            match part.and_then(|part| Some((part, part.generation.as_ref()?))) {
                Some((part, generation)) => Ok(Some((
                    generation.text.clone(),
                    generation.tokens.clone(),
                    reason(generation.finish_reason),
                    part.logprobs.clone(),
                ))),
                None if state.closed => Err(Cancelled::new_err("the request was ended before it was done")),
                None => Ok(None),
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (state, door) = (&mut self.state, &self.door);
        let Ok(state) = state.get_mut() else { return };
        if state.closed || state.is_done() {
            return;
        }
        // Python drops with its lock held, and another thread may be in the middle of a step: it must not wait for this lock meanwhile.
        Python::attach(|py| {
            py.detach(|| {
                // An engine that a panic has broken holds nothing that could be given back.
                if let Ok(mut shared) = door.enter() {
                    state.close(&mut shared);
                }
            });
        });
    }
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos => "eos",
        FinishReason::StopString => "stop_string",
        FinishReason::MaxTokens => "max_tokens",
        FinishReason::Context => "context",
        FinishReason::Cancelled => "cancelled",
    }
}
