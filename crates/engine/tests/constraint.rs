//! Constrained sequences: what they may take, how they end, and that their faults are theirs alone.

mod constrained;
mod toy;

use std::sync::Arc;

use constrained::Round;
use dualgrain_device::Device;
use dualgrain_device::naive::NaiveDevice;
use dualgrain_device::sampling::SamplingParams;
use dualgrain_engine::scheduler::{Event, FinishReason, Scheduler, TokenRequest};
use dualgrain_engine::{Model, SequenceId, Session, SessionLimits, SharedConstraint};

const END: u32 = 3;

const ROUND: Round = Round {
    modulus: 7,
    len: 30,
    never: None,
    fails_after: None,
    panics: false,
};

fn request(round: Option<Round>, seed: u64) -> TokenRequest {
    TokenRequest {
        prompt: vec![1, 2, 4, 5, 6 + (seed % 9) as u32],
        sampling: SamplingParams {
            temperature: 1.5,
            num_logprobs: Some(1),
            seed,
            ..SamplingParams::GREEDY
        },
        max_tokens: Some(40),
        end_tokens: vec![END],
        keep: false,
        score_from: None,
        constraint: round.map(|round| SharedConstraint(Arc::new(round))),
    }
}

/// What became of a sequence: its tokens and its end, or the words of its failure.
type Outcome = (Vec<u32>, Result<FinishReason, String>);

fn run<D: Device>(model: &Arc<Model<D>>, requests: &[TokenRequest]) -> Vec<Outcome> {
    let limits = SessionLimits::new(8, 64, 24);
    let mut scheduler = Scheduler::new(Session::new(Arc::clone(model), limits).unwrap());
    let ids: Vec<SequenceId> = requests
        .iter()
        .map(|request| scheduler.admit(request.clone()).unwrap())
        .collect();
    let mut outcomes = vec![(Vec::new(), Err("nothing yet".to_owned())); requests.len()];
    let place = |id: SequenceId| ids.iter().position(|&of| of == id).unwrap();
    while !scheduler.is_idle() {
        for event in scheduler.step().events {
            match event {
                Event::Token { id, token } => outcomes[place(id)].0.push(token.token),
                Event::Finished { id, reason } => outcomes[place(id)].1 = Ok(reason),
                Event::Failed { id, error } => outcomes[place(id)].1 = Err(error.to_string()),
                Event::Rows { .. } => {}
            }
        }
    }
    outcomes
}

fn follows(tokens: &[u32]) -> bool {
    tokens
        .iter()
        .enumerate()
        .all(|(place, &token)| ROUND.allows(place, token))
}

#[test]
fn constrained_answers_follow_their_rule_and_end_where_they_may() {
    for device in [NaiveDevice::new(), NaiveDevice::working_ahead()] {
        let model = toy::model(Arc::new(device));
        let mut requests: Vec<_> = (0..12).map(|seed| request(Some(ROUND), seed)).collect();
        requests.extend((0..6).map(|seed| request(None, seed)));
        let together = run(&model, &requests);
        for (index, (request, outcome)) in requests.iter().zip(&together).enumerate() {
            let alone = run(&model, std::slice::from_ref(request));
            assert_eq!(&alone[0], outcome, "request {index} alone and among others");
            if request.constraint.is_some() {
                let (tokens, end) = outcome;
                assert!(follows(tokens), "{tokens:?}");
                assert!((ROUND.len / 2..=ROUND.len).contains(&tokens.len()), "{tokens:?}");
                assert_eq!(end, &Ok(FinishReason::Eos));
            }
        }
        assert!(together[..12].iter().any(|(tokens, _)| tokens.len() == ROUND.len));
        assert!(together[12..].iter().any(|(tokens, _)| !follows(tokens)));
    }
}

#[test]
fn a_rule_that_fails_or_panics_ends_its_sequence_alone() {
    let model = toy::model(Arc::new(NaiveDevice::new()));
    let fails = |fails_after, panics| Round {
        fails_after: Some(fails_after),
        panics,
        ..ROUND
    };
    let requests = [
        request(Some(fails(0, false)), 1),
        request(Some(ROUND), 2),
        request(Some(fails(4, true)), 3),
        request(None, 4),
        request(Some(fails(4, false)), 5),
    ];
    let outcomes = run(&model, &requests);
    for (index, words) in [(0, "a constraint that fails"), (2, "panicked"), (4, "that fails")] {
        let error = outcomes[index].1.as_ref().unwrap_err();
        assert!(error.contains(words) && error.contains("constraint"), "{error}");
    }
    assert_eq!([0, 2, 4].map(|index| outcomes[index].0.len()), [0, 4, 4]);
    for index in [1, 3] {
        let alone = run(&model, &requests[index..=index]);
        assert_eq!(alone[0], outcomes[index]);
    }
}

#[test]
fn a_rule_that_allows_nothing_is_an_error_and_never_a_token() {
    let model = toy::model(Arc::new(NaiveDevice::new()));
    let nothing = Round {
        modulus: u32::MAX,
        len: 9,
        ..ROUND
    };
    // Only token 0 fits at place 0, and so on: beyond the vocabulary nothing does. With an end token it would end half way.
    let mut request = request(Some(nothing), 1);
    request.end_tokens.clear();
    request.max_tokens = None;
    let mut long = request.clone();
    long.constraint = Some(SharedConstraint(Arc::new(Round {
        len: 1_000,
        modulus: toy::VOCAB_SIZE + 1,
        ..ROUND
    })));
    let outcomes = run(&model, &[request, long]);
    assert_eq!(outcomes[0], ((0..9).collect(), Ok(FinishReason::Eos)));
    let expected: Vec<u32> = (0..toy::VOCAB_SIZE).collect();
    let (tokens, end) = &outcomes[1];
    assert!(expected.starts_with(tokens), "{tokens:?}");
    match end {
        Ok(reason) => assert_eq!(*reason, FinishReason::Context),
        Err(error) => assert!(error.contains("no token is possible"), "{error}"),
    }
}
