//! Requests alone and the same requests among others: what a sequence is given may not depend on who else runs.

use std::collections::HashMap;
use std::sync::Arc;

use dualgrain_device::Device;
use dualgrain_device::cases::Random;
use dualgrain_device::sampling::{ChosenToken, SamplingParams};
use dualgrain_engine::scheduler::{Event, Scheduler, TokenRequest};
use dualgrain_engine::{Model, SequenceId, Session, SessionLimits, SharedConstraint};

use crate::constrained::Round;

/// A rule that some requests follow.
const ROUND: Round = Round {
    modulus: 5,
    len: 16,
    never: None,
    fails_after: None,
    panics: false,
};
const MOST_PROMPT_TOKENS: usize = 150;
const MOST_NEW_TOKENS: usize = 24;
/// Sequences at once, and tokens of a step: an odd number, so that prompts are cut anywhere.
const SEQUENCES: usize = 24;
const STEP_TOKENS: usize = 77;

/// How many of `count` random requests are given another token or log-probability among the others than alone.
pub fn differing<D: Device>(model: &Arc<Model<D>>, count: usize) -> usize {
    let random = &mut Random(7);
    let vocab_size = model.config().vocab_size;
    let requests: Vec<TokenRequest> = (0..count).map(|_| request(random, vocab_size)).collect();
    let alone: Vec<_> = requests.iter().map(|request| run_alone(model, request)).collect();
    let together = run_together(model, &requests, random);
    alone
        .iter()
        .zip(&together)
        .filter(|(alone, together)| alone != together)
        .count()
}

fn request(random: &mut Random, vocab_size: usize) -> TokenRequest {
    let prompt_tokens = 1 + random.below(MOST_PROMPT_TOKENS);
    TokenRequest {
        constraint: (random.below(4) == 0).then(|| SharedConstraint(Arc::new(ROUND))),
        prompt: (0..prompt_tokens)
            .map(|_| random.below(vocab_size) as u32)
            .collect(),
        sampling: SamplingParams {
            temperature: 0.4 * random.below(4) as f32,
            top_k: 20 * random.below(3),
            top_p: [1.0, 0.9][random.below(2)],
            repetition_penalty: [1.0, 1.1][random.below(2)],
            num_logprobs: Some(2),
            seed: random.next(),
            ..SamplingParams::GREEDY
        },
        max_tokens: Some(1 + random.below(MOST_NEW_TOKENS)),
        end_tokens: Vec::new(),
        keep: random.below(2) == 0,
        score_from: None,
    }
}

fn scheduler<D: Device>(model: &Arc<Model<D>>, sequences: usize, step_tokens: usize) -> Scheduler<D> {
    let limits = SessionLimits::new(sequences, MOST_PROMPT_TOKENS + MOST_NEW_TOKENS, step_tokens);
    Scheduler::new(Session::new(Arc::clone(model), limits).expect("a session"))
}

/// The whole prompt in one step, then token by token.
fn run_alone<D: Device>(model: &Arc<Model<D>>, request: &TokenRequest) -> Vec<ChosenToken> {
    let mut scheduler = scheduler(model, 1, MOST_PROMPT_TOKENS);
    let id = scheduler.admit(request.clone()).expect("a request that fits");
    let mut given = HashMap::new();
    while !scheduler.is_idle() {
        step(&mut scheduler, &mut given);
    }
    given.remove(&id).unwrap_or_default()
}

/// In random order, some steps apart.
fn run_together<D: Device>(
    model: &Arc<Model<D>>,
    requests: &[TokenRequest],
    random: &mut Random,
) -> Vec<Vec<ChosenToken>> {
    let mut scheduler = scheduler(model, SEQUENCES, STEP_TOKENS);
    let mut waiting: Vec<usize> = (0..requests.len()).collect();
    let (mut ids, mut given) = (vec![None; requests.len()], HashMap::new());
    while !(waiting.is_empty() && scheduler.is_idle()) {
        for _ in 0..random.below(4).min(waiting.len()) {
            let which = waiting.swap_remove(random.below(waiting.len()));
            ids[which] = Some(
                scheduler
                    .admit(requests[which].clone())
                    .expect("a request that fits"),
            );
        }
        step(&mut scheduler, &mut given);
    }
    let of_request = |id: Option<SequenceId>| id.and_then(|id| given.remove(&id)).unwrap_or_default();
    ids.into_iter().map(of_request).collect()
}

fn step<D: Device>(scheduler: &mut Scheduler<D>, given: &mut HashMap<SequenceId, Vec<ChosenToken>>) {
    for event in scheduler.step().events {
        match event {
            Event::Token { id, token } => given.entry(id).or_default().push(token),
            Event::Failed { error, .. } => panic!("a request failed: {error}"),
            Event::Rows { .. } | Event::Finished { .. } => {}
        }
    }
}
