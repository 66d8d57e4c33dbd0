//! The scheduler: many sequences in few steps.
//!
//! Sequences are admitted in order, run in ragged steps that mix prompt chunks and decoding under a token budget, and end
//! each for a reason of their own. Nothing that the scheduler decides can change a bit of a sequence: results do not depend on
//! how a prompt is cut or on who shares a step. So pages can be taken from a sequence when they run short
//! and its tokens run again later, and a prompt that begins like another one can hold the same pages.

mod admission;
mod ahead;
mod event;
mod masks;
mod page_news;
mod page_watch;
mod plan;
mod rehearsal;
mod sequence;

use std::collections::VecDeque;
use std::sync::Arc;

use dualgrain_device::Device;
use dualgrain_device::sampling::{Sample, TokenMask};

use super::error::SessionError;
use super::session::{Session, check_tokens};
use crate::EngineError;
use page_watch::PageWatch;
use plan::{Candidate, Part, divide};
use sequence::Sequence;

pub use event::{Event, PageChange, StepReport};
pub use sequence::{FinishReason, SequenceId, TokenRequest};

/// Sequences of one model, from admission to their end.
pub struct Scheduler<D: Device> {
    session: Session<D>,
    /// Not running yet, or not any more: the oldest first.
    waiting: VecDeque<Sequence>,
    /// The oldest first.
    running: Vec<Running>,
    /// Ended sequences whose keys and values are still there: the oldest first.
    kept: Vec<Kept>,
    free_slots: Vec<usize>,
    /// The sequences of a step whose tokens were not read yet, in the order of its rows.
    under_way: Option<Vec<SequenceId>>,
    next_id: u64,
    num_steps: u64,
    /// Parts of steps so far, over all sequences.
    num_turns: u64,
    /// Where the next mask is made.
    mask: TokenMask,
    /// Which pages were told of, where somebody asked.
    page_watch: Option<PageWatch>,
}

/// A sequence that holds a slot of the session.
struct Running {
    sequence: Sequence,
    slot: usize,
}

/// What an ended sequence left in the cache.
struct Kept {
    slot: usize,
    tokens: Vec<u32>,
}

impl<D: Device> Scheduler<D> {
    /// Schedules the sequences of `session`, which holds none yet.
    pub fn new(session: Session<D>) -> Self {
        let slots = (0..session.limits().num_sequences).rev();
        let mask = TokenMask::new(session.model().config().vocab_size);
        Self {
            free_slots: slots.collect(),
            session,
            waiting: VecDeque::new(),
            running: Vec::new(),
            kept: Vec::new(),
            under_way: None,
            next_id: 0,
            num_steps: 0,
            num_turns: 0,
            mask,
            page_watch: None,
        }
    }

    /// Takes a request over. It runs as soon as there is room for it, after those that were admitted before.
    ///
    /// # Errors
    /// A prompt that is empty, outside the vocabulary or longer than a context; parameters outside their ranges.
    pub fn admit(&mut self, request: TokenRequest) -> Result<SequenceId, EngineError> {
        let context_tokens = self.session.limits().context_tokens;
        request.sampling.check()?;
        check_tokens(&request.prompt, self.session.model().config().vocab_size)?;
        if request.prompt.is_empty() {
            return Err(SessionError::Empty.into());
        }
        if request.prompt.len() > context_tokens {
            return Err(SessionError::Context {
                sequence: self.next_id as usize,
                got: request.prompt.len(),
                context_tokens,
            }
            .into());
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence::new(id, request));
        Ok(id)
    }

    /// Ends a sequence before its time, wherever it stands; no event tells of it. What it holds in the cache is free at once, or kept
    /// as at any other end where its request asked for that: kept pages give way when another sequence needs them.
    /// Returns whether there was one.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(index);
            return true;
        }
        match self.running.iter().position(|running| running.sequence.id == id) {
            Some(index) => {
                self.end(index);
                true
            }
            None => false,
        }
    }

    /// Runs one step. A device that fails ends every sequence with its error; the scheduler can go on with new ones.
    pub fn step(&mut self) -> StepReport {
        let mut report = StepReport::default();
        self.num_steps += 1;
        let outcome = self.try_step(&mut report);
        if let Err(error) = outcome {
            self.fail_all(Arc::new(error), &mut report.events);
        }
        self.tell_pages(&mut report);
        report
    }

    /// Whether no sequence is left to run.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Sequences that wait for room.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences that run.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Pages of the cache that running sequences hold; a page that several hold counts once. What ended sequences left does not
    /// count: it gives way.
    pub fn num_held_pages(&self) -> usize {
        let mut is_held = vec![false; self.session.num_pages()];
        let running = self.running.iter();
        for &page in running.flat_map(|running| self.session.pages(running.slot)) {
            is_held[page as usize] = true;
        }
        is_held.into_iter().filter(|&is_held| is_held).count()
    }

    /// Logits `[rows.len(), vocab]` of rows of the last step, where [`Event::Rows`] says that they stand.
    ///
    /// # Errors
    /// As [`Session::logits`].
    pub fn logits(&mut self, rows: &[u32]) -> Result<&mut D::Matrix, EngineError> {
        self.session.logits(rows)
    }

    /// The session underneath.
    pub fn session(&self) -> &Session<D> {
        &self.session
    }

    /// Forgets what ended sequences left in the cache.
    pub fn forget_kept(&mut self) {
        while self.drop_oldest_kept() {}
    }

    fn try_step(&mut self, report: &mut StepReport) -> Result<(), EngineError> {
        if let Some(sequences) = self.under_way.take() {
            return self.go_ahead(sequences, report);
        }
        self.finish_empty_requests(&mut report.events);
        self.begin_waiting(report)?;
        let parts = self.plan(report);
        if parts.is_empty() {
            return Ok(());
        }
        self.run(&parts)?;
        let can_go_ahead = self.can_go_ahead(&parts);
        let complete = self.count(&parts, report);
        if can_go_ahead {
            let sequences = self.begin_sample(&complete)?;
            return self.go_ahead(sequences, report);
        }
        let (scored, sampled): (Vec<_>, Vec<_>) = complete
            .into_iter()
            .partition(|&(_, index)| self.running[index].sequence.request.max_tokens == Some(0));
        let mut ended = self.sample(&sampled, report)?;
        for (_, index) in scored {
            let (id, reason) = (self.running[index].sequence.id, FinishReason::MaxTokens);
            report.events.push(Event::Finished { id, reason });
            ended.push(index);
        }
        self.end_all(ended);
        Ok(())
    }

    /// Takes sequences out of the running ones.
    fn end_all(&mut self, mut ended: Vec<usize>) {
        ended.sort_unstable();
        ended.into_iter().rev().for_each(|index| self.end(index));
    }

    /// Requests for no tokens at all are done before they begin.
    fn finish_empty_requests(&mut self, events: &mut Vec<Event>) {
        self.waiting.retain(|sequence| {
            let request = &sequence.request;
            let is_done = request.max_tokens == Some(0) && request.score_from.is_none();
            if is_done {
                events.push(Event::Finished {
                    id: sequence.id,
                    reason: FinishReason::MaxTokens,
                });
            }
            !is_done
        });
    }

    /// Divides the next step. Where its pages run short the youngest sequence gives its own up.
    fn plan(&mut self, report: &mut StepReport) -> Vec<Part> {
        loop {
            let candidates: Vec<Candidate> = self
                .running
                .iter()
                .map(|running| self.candidate(running))
                .collect();
            let parts = divide(&candidates, self.most_tokens(&candidates), self.num_steps);
            let needed = parts.iter().map(|part| {
                let slot = self.running[part.index].slot;
                self.session
                    .missing_pages(slot, self.session.len(slot) + part.num_tokens)
            });
            if needed.sum::<usize>() <= self.session.num_free_pages() {
                return parts;
            }
            if !self.drop_oldest_kept() {
                self.preempt_youngest();
                report.num_preempted += 1;
            }
        }
    }

    /// Tokens of the next step: fewer where sequences decode, so that they come evenly.
    fn most_tokens(&self, candidates: &[Candidate]) -> usize {
        let limits = self.session.limits();
        match candidates.iter().any(|candidate| candidate.decodes) {
            true => limits.stream_step_tokens.min(limits.step_tokens),
            false => limits.step_tokens,
        }
    }

    fn candidate(&self, running: &Running) -> Candidate {
        let sequence = &running.sequence;
        let pending = sequence.tokens.len() - self.session.len(running.slot);
        Candidate {
            pending,
            decodes: pending == 1 && !sequence.generated().is_empty(),
            last_turn: sequence.last_turn,
        }
    }

    /// Takes the pages of the youngest sequence; its tokens will run again.
    fn preempt_youngest(&mut self) {
        let Some(Running { sequence, slot }) = self.running.pop() else {
            return;
        };
        self.session.reset(slot);
        self.free_slots.push(slot);
        let place = self.waiting.partition_point(|waiting| waiting.id < sequence.id);
        self.waiting.insert(place, sequence);
    }

    fn run(&mut self, parts: &[Part]) -> Result<(), EngineError> {
        let tokens = |part: &Part| {
            let Running { sequence, slot } = &self.running[part.index];
            let first = self.session.len(*slot);
            (*slot, &sequence.tokens[first..first + part.num_tokens])
        };
        let batch: Vec<(usize, &[u32])> = parts.iter().map(tokens).collect();
        self.session.run(&batch)
    }

    /// Counts what was run, and says where scored rows stand; returns (row of the step, index of the sequence) where all tokens
    /// of a sequence have been run.
    fn count(&mut self, parts: &[Part], report: &mut StepReport) -> Vec<(u32, usize)> {
        let mut complete = Vec::with_capacity(parts.len());
        let mut num_rows = 0;
        for part in parts {
            let running = &mut self.running[part.index];
            self.num_turns += 1;
            running.sequence.last_turn = self.num_turns;
            let cached = self.session.len(running.slot);
            let positions = cached - part.num_tokens..cached;
            let first = positions.start;
            let scored = running.sequence.score(positions);
            report.events.extend(scored.map(|positions| Event::Rows {
                id: running.sequence.id,
                first_row: (num_rows + positions.start - first) as u32,
                positions,
            }));
            num_rows += part.num_tokens;
            report.computed.push((running.sequence.id, part.num_tokens));
            if part.num_tokens > 1 || running.sequence.generated().is_empty() {
                report.prompt_tokens += part.num_tokens;
            }
            if cached == running.sequence.tokens.len() {
                complete.push((num_rows as u32 - 1, part.index));
            }
        }
        complete
    }

    /// Gives each sequence of `sampled` its next token; returns those that end with it.
    fn sample(
        &mut self,
        sampled: &[(u32, usize)],
        report: &mut StepReport,
    ) -> Result<Vec<usize>, EngineError> {
        let mut ended = Vec::new();
        let sampled = self.mask_rows(sampled, &mut report.events, &mut ended)?;
        if sampled.is_empty() {
            return Ok(ended);
        }
        let rows: Vec<(u32, usize)> = sampled
            .iter()
            .map(|&(row, index)| (row, self.running[index].slot))
            .collect();
        let samples = self.session.sample(&rows)?;
        report.sampled_tokens = samples.len();
        for (&(_, index), sample) in sampled.iter().zip(samples) {
            if self.take_sample(index, sample, &mut report.events) {
                ended.push(index);
            }
        }
        Ok(ended)
    }

    /// Gives a sequence its next token; whether it ends with it.
    fn take_sample(&mut self, index: usize, sample: Sample, events: &mut Vec<Event>) -> bool {
        let context_tokens = self.session.limits().context_tokens;
        let sequence = &mut self.running[index].sequence;
        let id = sequence.id;
        let has_room = sequence.tokens.len() < context_tokens;
        let taken = match sample {
            Ok(token) => sequence
                .accept(token.token, has_room)
                .map(|reason| (token, reason))
                .map_err(EngineError::from),
            Err(error) => {
                // What such a sequence has in the cache is of no use to another.
                sequence.request.keep = false;
                Err(error.into())
            }
        };
        let (token, reason) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                let error = Arc::new(error);
                events.push(Event::Failed { id, error });
                return true;
            }
        };
        // An end token is not told of; the last token of a constraint that is complete is.
        if !sequence.request.end_tokens.contains(&token.token) {
            events.push(Event::Token { id, token });
        }
        if let Some(reason) = reason {
            events.push(Event::Finished { id, reason });
        }
        reason.is_some()
    }

    /// Takes a sequence out of the running ones; its pages are kept or free.
    fn end(&mut self, index: usize) {
        let Running { sequence, slot } = self.running.remove(index);
        let mut tokens = sequence.tokens;
        // A step ahead has run a token that does not belong to the sequence.
        self.session.truncate(slot, tokens.len());
        tokens.truncate(self.session.len(slot));
        if sequence.request.keep && !tokens.is_empty() {
            self.kept.push(Kept { slot, tokens });
        } else {
            self.session.reset(slot);
            self.free_slots.push(slot);
        }
    }

    fn drop_oldest_kept(&mut self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let Kept { slot, .. } = self.kept.remove(0);
        self.session.reset(slot);
        self.free_slots.push(slot);
        true
    }

    fn fail_all(&mut self, error: Arc<EngineError>, events: &mut Vec<Event>) {
        self.under_way = None;
        self.session.forget_samples();
        let running = std::mem::take(&mut self.running);
        for Running { slot, .. } in &running {
            self.session.reset(*slot);
            self.free_slots.push(*slot);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let all = running.into_iter().map(|running| running.sequence).chain(waiting);
        events.extend(all.map(|sequence| Event::Failed {
            id: sequence.id,
            error: Arc::clone(&error),
        }));
        self.forget_kept();
    }
}
