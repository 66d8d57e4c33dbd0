//! The scheduler over many steps of random requests, cancellations, page shortage, failing sequences and failing devices.
//!
//! After every step no page is lost or shared wrongly, and every sequence that ends has the tokens, the log-probabilities and
//! the logits after scored prompt tokens that it has alone, bit for bit; where a sequence is cut short by a cancellation or a
//! device, they are a prefix. Every sequence ends within a number of steps that is known when it is admitted. `SIMULATION_STEPS`
//! (10,000 by default) and `SIMULATION_SEED` change the run:
//! `SIMULATION_STEPS=1000000 cargo test --release -p dualgrain-engine --test simulation -- --nocapture`

mod constrained;
mod told_pages;
mod toy;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use constrained::Round;
use dualgrain_device::cases::Random;
use dualgrain_device::naive::NaiveDevice;
use dualgrain_device::sampling::{ChosenToken, SamplingParams};
use dualgrain_device::{Device, PAGE_TOKENS};
use dualgrain_engine::scheduler::{Event, FinishReason, Scheduler, StepReport, TokenRequest};
use dualgrain_engine::{EngineError, Model, SequenceId, Session, SessionLimits, SharedConstraint};
use told_pages::ToldPages;

/// A token whose embedding is NaN: sequences with it fail.
const SPOILED: u32 = toy::VOCAB_SIZE - 1;
const CONTEXT_TOKENS: usize = 250;
/// Sequences that run at once.
const MAX_RUNNING: usize = 6;
/// Different requests that come again and again.
const NUM_REQUESTS: usize = 150;
/// Sequences in the scheduler at once, most of them waiting.
const MAX_LIVE: usize = 24;

/// How a sequence ends.
#[derive(Debug, Clone, PartialEq)]
enum End {
    Finished(FinishReason),
    Failed,
}

/// What a sequence has told so far.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    tokens: Vec<ChosenToken>,
    /// Scored positions in order, each with the bits of its logits.
    scored: Vec<(usize, Vec<u32>)>,
}

type Outcome = (Told, End);

/// A sequence that was admitted and has not ended.
struct Live {
    /// Index of its request.
    which: usize,
    told: Told,
    /// Number of the step before which it was admitted.
    admitted: usize,
    /// Number of the step by which it ends at the latest.
    deadline: usize,
}

#[test]
fn every_sequence_is_what_it_is_alone_whatever_happens_around_it() {
    let steps = number("SIMULATION_STEPS", 10_000);
    let counts = simulate(steps, (48, 48), NaiveDevice::new());
    assert!(
        steps < 5_000
            || counts.finished > 500 && counts.failed > 10 && counts.cancelled > 50 && counts.faults > 5
    );
    assert!(steps < 5_000 || counts.preempted > 20, "pages never ran short");
}

#[test]
fn nobody_starves_where_a_step_has_fewer_tokens_than_sequences_run() {
    let steps = number("SIMULATION_STEPS", 10_000);
    let counts = simulate(steps, (4, 4), NaiveDevice::new());
    assert!(steps < 5_000 || counts.finished > 100);
}

#[test]
fn small_steps_beside_streams_change_nothing() {
    let steps = number("SIMULATION_STEPS", 3_000);
    let counts = simulate(steps, (48, 12), NaiveDevice::new());
    assert!(steps < 3_000 || counts.finished > 50);
}

#[test]
fn steps_that_begin_before_tokens_are_read_change_nothing() {
    let steps = number("SIMULATION_STEPS", 5_000);
    let counts = simulate(steps, (48, 48), NaiveDevice::working_ahead());
    assert!(
        steps < 5_000
            || counts.finished > 250 && counts.failed > 5 && counts.cancelled > 25 && counts.faults > 2
    );
    simulate(steps / 5, (4, 4), NaiveDevice::working_ahead());
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Steps of so many tokens, and of so many while a sequence decodes.
fn simulate(steps: usize, step_tokens: (usize, usize), device: NaiveDevice) -> Counts {
    let seed = number("SIMULATION_SEED", 1);
    let mut simulation = Simulation::new(seed as u64, step_tokens, device);
    for _ in 0..steps {
        simulation.step();
    }
    simulation.drain();
    let counts = simulation.counts;
    println!("{steps} steps of {step_tokens:?} tokens with seed {seed}: {counts:?}");
    counts
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    finished: usize,
    failed: usize,
    cancelled: usize,
    faults: usize,
    preempted: usize,
    begun_beside_others: usize,
    /// Most steps that a sequence took from its admission to its end.
    longest_life: usize,
    /// Most steps that a sequence could have taken.
    longest_bound: usize,
}

struct Simulation {
    random: Random,
    device: Arc<NaiveDevice>,
    scheduler: Scheduler<NaiveDevice>,
    /// On a device of its own, which never works ahead.
    model_alone: Arc<Model<NaiveDevice>>,
    requests: Vec<TokenRequest>,
    alone: HashMap<usize, Outcome>,
    live: BTreeMap<SequenceId, Live>,
    num_steps: usize,
    counts: Counts,
    told_pages: ToldPages,
}

impl Simulation {
    fn new(seed: u64, (step_tokens, stream_step_tokens): (usize, usize), device: NaiveDevice) -> Self {
        let mut random = Random(seed);
        let model_on = |device: &Arc<NaiveDevice>| {
            device.spoil_token(SPOILED, toy::VOCAB_SIZE as usize);
            toy::model(Arc::clone(device))
        };
        let device = Arc::new(device);
        let model = model_on(&device);
        let limits = SessionLimits {
            num_pages: Some(11),
            stream_step_tokens,
            ..SessionLimits::new(MAX_RUNNING, CONTEXT_TOKENS, step_tokens)
        };
        let bases: Vec<Vec<u32>> = (0..4).map(|_| tokens(&mut random, 200)).collect();
        let mut scheduler = Scheduler::new(Session::new(model, limits).unwrap());
        scheduler.watch_pages();
        Self {
            requests: (0..NUM_REQUESTS).map(|_| request(&mut random, &bases)).collect(),
            scheduler,
            model_alone: model_on(&Arc::new(NaiveDevice::new())),
            random,
            device,
            alone: HashMap::new(),
            live: BTreeMap::new(),
            num_steps: 0,
            counts: Counts::default(),
            told_pages: ToldPages::default(),
        }
    }

    fn step(&mut self) {
        while self.live.len() < MAX_LIVE && self.random.below(3) == 0 {
            self.admit_one();
        }
        if self.random.below(40) == 0 {
            self.cancel_one();
        }
        let is_faulty = self.random.below(1000) == 0;
        if is_faulty {
            self.device.fail_after(self.random.below(80) as u64);
        }
        self.run();
    }

    /// Steps until every sequence has ended, while nothing new comes and nothing fails.
    fn drain(&mut self) {
        // Who was admitted last has the latest deadline that counts: `run` checks each.
        while !self.scheduler.is_idle() {
            self.run();
        }
        assert!(self.live.is_empty(), "sequences without an end");
        self.told_pages.hear_the_end(&mut self.scheduler);
    }

    fn admit_one(&mut self) {
        let which = self.random.below(NUM_REQUESTS);
        let id = self.scheduler.admit(self.requests[which].clone()).unwrap();
        let step_tokens = self.scheduler.session().limits().stream_step_tokens;
        let before = self
            .live
            .values()
            .map(|live| (live.which, live.told.tokens.len()));
        let bound = before
            .chain([(which, 0)])
            .map(|(which, told)| most_steps(&self.requests[which], told, step_tokens))
            .sum::<usize>();
        self.counts.longest_bound = self.counts.longest_bound.max(bound);
        let live = Live {
            which,
            told: Told::default(),
            admitted: self.num_steps,
            deadline: self.num_steps + bound,
        };
        self.live.insert(id, live);
    }

    /// One step of the scheduler, and everything that must hold after it.
    fn run(&mut self) {
        let before = self.scheduler.num_running();
        self.num_steps += 1;
        let report = self.scheduler.step();
        // A fault that no operation of the step met must not hit what follows.
        self.device.fail_after(u64::MAX - 1);
        self.counts.preempted += report.num_preempted;
        self.check_watermark(before, &report);
        let tokens = |id| {
            let Live { which, told, .. } = &self.live[&id];
            let prompt = self.requests[*which].prompt.iter().copied();
            prompt
                .chain(told.tokens.iter().map(|chosen| chosen.token))
                .collect()
        };
        self.told_pages.hear_step(&report, &self.scheduler, tokens);
        for event in report.events {
            self.take(event);
        }
        self.check_pages();
        self.check_deadlines();
    }

    /// A sequence begins beside others only when all have pages for their pending tokens, and a page stays free.
    fn check_watermark(&mut self, num_running_before: usize, report: &StepReport) {
        if report.num_begun > 0 && num_running_before + report.num_begun > 1 {
            assert_eq!(report.num_preempted, 0, "no page was left for who ran already");
            assert!(
                self.scheduler.session().num_free_pages() > 0,
                "no page was left to grow into"
            );
            self.counts.begun_beside_others += report.num_begun;
        }
    }

    /// Nobody starves: see [`most_steps`].
    fn check_deadlines(&self) {
        for (id, live) in &self.live {
            let Live {
                which,
                admitted,
                deadline,
                ..
            } = live;
            assert!(
                self.num_steps < *deadline,
                "{id:?} of request {which}, admitted before step {admitted}, runs after step {deadline}"
            );
        }
    }

    fn cancel_one(&mut self) {
        let ids: Vec<SequenceId> = self.live.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.random.below(ids.len())];
        assert!(self.scheduler.cancel(id) && !self.scheduler.cancel(id));
        self.compare_beginning(id);
        self.counts.cancelled += 1;
        self.check_pages();
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Token { id, token } => self.live.get_mut(&id).unwrap().told.tokens.push(token),
            Event::Rows {
                id,
                positions,
                first_row,
            } => {
                let scored = read_rows(&mut self.scheduler, positions, first_row);
                self.live.get_mut(&id).unwrap().told.scored.extend(scored);
            }
            Event::Finished { id, reason } => {
                self.counts.finished += 1;
                self.compare(id, End::Finished(reason));
            }
            Event::Failed { id, error } => match &*error {
                EngineError::Device(error) => {
                    assert!(error.to_string().contains("told to fail"), "{error}");
                    self.counts.faults += 1;
                    self.compare_beginning(id);
                }
                EngineError::Sample(_) | EngineError::Constraint(_) => {
                    self.counts.failed += 1;
                    self.compare(id, End::Failed);
                }
                other => panic!("{other}"),
            },
        }
    }

    fn compare(&mut self, id: SequenceId, end: End) {
        let (which, told) = self.end(id);
        assert_eq!((told, end), self.alone(which), "request {which}");
    }

    /// What a sequence told that was cut short is how it begins alone.
    fn compare_beginning(&mut self, id: SequenceId) {
        let (which, told) = self.end(id);
        let (expected, _) = self.alone(which);
        assert!(
            expected.tokens.starts_with(&told.tokens),
            "request {which} cut short"
        );
        assert!(
            expected.scored.starts_with(&told.scored),
            "request {which} cut short"
        );
    }

    /// The request of a sequence that has ended, and what it told.
    fn end(&mut self, id: SequenceId) -> (usize, Told) {
        let Live {
            which,
            told,
            admitted,
            ..
        } = self.live.remove(&id).unwrap();
        self.counts.longest_life = self.counts.longest_life.max(self.num_steps - admitted);
        (which, told)
    }

    /// What a request gives when nothing else runs and nothing fails.
    fn alone(&mut self, which: usize) -> Outcome {
        if let Some(outcome) = self.alone.get(&which) {
            return outcome.clone();
        }
        let outcome = run_alone(&self.model_alone, self.requests[which].clone());
        self.alone.insert(which, outcome.clone());
        outcome
    }

    /// Every page is held by exactly the tables that name it, and free otherwise; tables have as many as their tokens need.
    fn check_pages(&self) {
        let session = self.scheduler.session();
        let mut holders = vec![0; session.num_pages()];
        for sequence in 0..session.limits().num_sequences {
            let pages = session.pages(sequence);
            assert_eq!(pages.len(), session.len(sequence).div_ceil(PAGE_TOKENS));
            pages.iter().for_each(|&page| holders[page as usize] += 1);
        }
        for (page, &count) in holders.iter().enumerate() {
            assert_eq!(session.num_holders(page as u32), count, "holders of page {page}");
        }
        let free = holders.iter().filter(|&&count| count == 0).count();
        assert_eq!(session.num_free_pages(), free);
        assert!(!self.scheduler.is_idle() || self.live.is_empty());
    }
}

/// Steps after which a sequence has ended at the latest when it has told of `told` tokens and none before it is left.
///
/// The oldest sequence is admitted first and keeps its pages. While it has a prompt to run (with what was generated before its
/// pages were taken, if they were), each step runs what is left of it, or as much as there is room for beside the others that
/// decode. Afterwards it has a turn when those have had one that had their last turn before: each of the others can go
/// ahead once. Some sequence is the oldest in every step, so a sequence ends within the sum over it and all before it.
fn most_steps(request: &TokenRequest, told: usize, step_tokens: usize) -> usize {
    let prompt_tokens = request.prompt.len();
    // The last token is sampled after a full context.
    let to_context = CONTEXT_TOKENS + 1 - prompt_tokens;
    let new_tokens = request.max_tokens.map_or(to_context, |max| max.min(to_context));
    // Prompts have a quarter of a step, if they need it.
    let room_to_decode = step_tokens - step_tokens / 4;
    let room_for_prompt = step_tokens - room_to_decode.min(MAX_RUNNING - 1);
    let steps_to_turn = MAX_LIVE.div_ceil(room_to_decode);
    (prompt_tokens + new_tokens).div_ceil(room_for_prompt) + (new_tokens - told) * steps_to_turn
}

fn run_alone(model: &Arc<Model<NaiveDevice>>, request: TokenRequest) -> Outcome {
    let limits = SessionLimits::new(1, CONTEXT_TOKENS, 64);
    let mut scheduler = Scheduler::new(Session::new(Arc::clone(model), limits).unwrap());
    scheduler.admit(request).unwrap();
    let mut told = Told::default();
    loop {
        for event in scheduler.step().events {
            match event {
                Event::Token { token, .. } => told.tokens.push(token),
                Event::Rows {
                    positions, first_row, ..
                } => told
                    .scored
                    .extend(read_rows(&mut scheduler, positions, first_row)),
                Event::Finished { reason, .. } => return (told, End::Finished(reason)),
                Event::Failed { .. } => return (told, End::Failed),
            }
        }
    }
}

/// The logits of scored positions, as bits.
fn read_rows(
    scheduler: &mut Scheduler<NaiveDevice>,
    positions: Range<usize>,
    first_row: u32,
) -> Vec<(usize, Vec<u32>)> {
    let model = Arc::clone(scheduler.session().model());
    let read = |(idx, position)| {
        let logits = scheduler.logits(&[first_row + idx as u32]).unwrap();
        let mut row = vec![0.0; toy::VOCAB_SIZE as usize];
        model.device().download(logits, 0..1, &mut row).unwrap();
        (position, row.iter().map(|value: &f32| value.to_bits()).collect())
    };
    positions.enumerate().map(read).collect()
}

fn tokens(random: &mut Random, len: usize) -> Vec<u32> {
    (0..len).map(|_| random.below(SPOILED as usize) as u32).collect()
}

/// Tokens in rounds of a few, now and then broken off by an error or a panic.
fn constraint(random: &mut Random) -> SharedConstraint {
    let round = Round {
        modulus: 1 + random.below(6) as u32,
        len: 1 + random.below(120),
        never: Some(SPOILED),
        fails_after: (random.below(20) == 0).then(|| random.below(30)),
        panics: random.below(2) == 0,
    };
    SharedConstraint(Arc::new(round))
}

/// A prompt that may begin as others do, and one of many ways to continue it.
fn request(random: &mut Random, bases: &[Vec<u32>]) -> TokenRequest {
    let mut prompt = match random.below(2) {
        0 => Vec::new(),
        _ => {
            let base = &bases[random.below(bases.len())];
            base[..random.below(base.len())].to_vec()
        }
    };
    let len = 1 + random.below(40);
    prompt.extend(tokens(random, len));
    if random.below(20) == 0 {
        let place = random.below(prompt.len());
        prompt[place] = SPOILED;
    }
    let mut sampling = SamplingParams {
        num_logprobs: Some(2),
        seed: random.next(),
        ..SamplingParams::GREEDY
    };
    if random.below(4) > 0 {
        sampling.temperature = 0.3 + random.float().abs();
        sampling.top_k = random.below(12);
        sampling.top_p = 0.5 + 0.5 * random.float().abs();
        sampling.min_p = 0.1 * random.float().abs();
    }
    if random.below(3) == 0 {
        sampling.repetition_penalty = 1.3;
        sampling.frequency_penalty = 0.2;
        sampling.presence_penalty = -0.1;
    }
    let is_scored = random.below(8) == 0;
    TokenRequest {
        constraint: (random.below(6) == 0).then(|| constraint(random)),
        score_from: is_scored.then(|| random.below(prompt.len())),
        prompt,
        sampling,
        max_tokens: (random.below(10) > 0).then(|| random.below(120)),
        end_tokens: vec![3],
        keep: random.below(4) == 0,
    }
}
