//! Streams beside prompts: how many tokens of a prompt share a step with a sequence that decodes.

mod toy;

use std::sync::Arc;

use dualgrain_device::naive::NaiveDevice;
use dualgrain_device::sampling::SamplingParams;
use dualgrain_engine::scheduler::{Scheduler, TokenRequest};
use dualgrain_engine::{Session, SessionLimits};

fn request(prompt_tokens: usize, max_tokens: usize) -> TokenRequest {
    TokenRequest {
        prompt: (0..prompt_tokens)
            .map(|i| i as u32 % (toy::VOCAB_SIZE - 1))
            .collect(),
        sampling: SamplingParams::GREEDY,
        max_tokens: Some(max_tokens),
        end_tokens: Vec::new(),
        score_from: None,
        keep: false,
        constraint: None,
    }
}

#[test]
fn prompts_take_small_steps_while_a_sequence_decodes_and_large_ones_otherwise() {
    let limits = SessionLimits {
        stream_step_tokens: 8,
        ..SessionLimits::new(2, 200, 32)
    };
    let model = toy::model(Arc::new(NaiveDevice::new()));
    let mut scheduler = Scheduler::new(Session::new(model, limits).unwrap());
    scheduler.admit(request(40, 4)).unwrap();
    let mut prompts = vec![scheduler.step().prompt_tokens, scheduler.step().prompt_tokens];
    assert_eq!(prompts, [32, 8], "nobody decodes");

    scheduler.admit(request(100, 1)).unwrap();
    prompts.clear();
    while !scheduler.is_idle() {
        prompts.push(scheduler.step().prompt_tokens);
    }
    // Three tokens of the first sequence, each beside seven of the second's prompt, which then has steps of its own.
    assert_eq!(prompts, [7, 7, 7, 32, 32, 15]);
}
