//! Requests of the toy model that share steps and draw their tokens.

use std::sync::Arc;

use dualgrain_device::Device;
use dualgrain_device::sampling::SamplingParams;
use dualgrain_engine::scheduler::{Event, Scheduler, TokenRequest};
use dualgrain_engine::{SequenceId, Session, SessionLimits, SharedConstraint};

use crate::constrained::Round;
use crate::toy;

const ROUND: Round = Round {
    modulus: 3,
    len: 20,
    // Its embedding is NaN.
    never: Some(toy::VOCAB_SIZE - 1),
    fails_after: None,
    panics: false,
};

/// Every event of the requests, tokens and log-probabilities among them, as text: sequence by sequence, because a device that works
/// ahead of its host runs them in other steps.
pub fn events<D: Device>(device: Arc<D>) -> Vec<String> {
    let session = Session::new(toy::model(device), SessionLimits::new(3, 120, 20)).unwrap();
    let mut scheduler = Scheduler::new(session);
    for seed in 0..5 {
        let sampling = SamplingParams {
            temperature: 0.25 * seed as f32,
            top_p: 0.9,
            repetition_penalty: 1.1,
            num_logprobs: Some(3),
            seed,
            ..SamplingParams::GREEDY
        };
        let prompt = (0..30 + seed as u32)
            .map(|i| (i * 7 + 3) % toy::VOCAB_SIZE)
            .collect();
        let request = TokenRequest {
            // Those of odd seeds follow a rule: steps with and without masks take turns.
            constraint: (seed % 2 == 1).then(|| SharedConstraint(Arc::new(ROUND))),
            score_from: None,
            prompt,
            sampling,
            max_tokens: Some(30),
            end_tokens: Vec::new(),
            keep: false,
        };
        scheduler.admit(request).unwrap();
    }
    let mut events = Vec::new();
    while !scheduler.is_idle() {
        events.extend(scheduler.step().events);
    }
    assert!(!events.iter().any(|event| matches!(event, Event::Failed { .. })));
    events.sort_by_key(sequence);
    events.iter().map(|event| format!("{event:?}")).collect()
}

fn sequence(event: &Event) -> SequenceId {
    match event {
        Event::Token { id, .. }
        | Event::Rows { id, .. }
        | Event::Finished { id, .. }
        | Event::Failed { id, .. } => *id,
    }
}
