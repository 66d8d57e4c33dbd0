//! The generation loop on the bundled model.

mod constrained;
mod invariance;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use dualgrain_cpu::CpuDevice;
use dualgrain_device::sampling::SamplingParams;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{
    Engine, Event, FinishReason, GenerateError, GenerateOptions, Generation, LoadOptions, Model, Request,
    SessionLimits, Weights,
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/llama-tiny");
const PROMPT: &str = "The captain looked at the sea and";

fn model() -> &'static Arc<Model<CpuDevice>> {
    static MODEL_CELL: OnceLock<Arc<Model<CpuDevice>>> = OnceLock::new();
    MODEL_CELL.get_or_init(|| {
        let device = Arc::new(CpuDevice::new(0).unwrap());
        Arc::new(Model::load(device, Path::new(MODEL), &LoadOptions::default()).unwrap())
    })
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::load(Path::new(MODEL), model().config().vocab_size).unwrap())
}

fn engine(num_sequences: usize, context_tokens: usize, step_tokens: usize) -> Engine<CpuDevice> {
    let limits = SessionLimits::new(num_sequences, context_tokens, step_tokens);
    Engine::new(model().clone(), tokenizer(), limits).unwrap()
}

fn request(prompt: &str, max_tokens: usize) -> Request {
    Request {
        prompt: tokenizer().encode(prompt, true).unwrap(),
        options: GenerateOptions {
            max_tokens: Some(max_tokens),
            ..GenerateOptions::default()
        },
        keep: false,
    }
}

fn run(engine: &mut Engine<CpuDevice>, request: &Request) -> (Generation, Vec<String>) {
    let mut pieces = Vec::new();
    let mut collect = |text: &str| {
        pieces.push(text.to_owned());
        ControlFlow::Continue(())
    };
    let (generation, _) = engine.generate(request.clone(), &mut collect).unwrap();
    (generation, pieces)
}

#[test]
fn streamed_pieces_join_to_the_text_of_the_tokens() {
    let (generation, pieces) = run(&mut engine(1, 128, 64), &request(PROMPT, 40));
    assert_eq!(generation.finish_reason, FinishReason::MaxTokens);
    assert_eq!(generation.tokens.len(), 40);
    assert_eq!(pieces.concat(), generation.text);
    assert_eq!(
        tokenizer().decode(&generation.tokens, true).unwrap(),
        generation.text
    );
    assert!(pieces.len() > 20, "text must come piece by piece: {pieces:?}");
}

#[test]
fn the_size_of_prompt_chunks_does_not_change_the_text() {
    let request = request(
        "It was the best of times, it was the worst of times, it was the age of wisdom",
        20,
    );
    let expected = run(&mut engine(1, 128, 128), &request).0;
    for step_tokens in [1, 3, 7] {
        assert_eq!(
            run(&mut engine(1, 128, step_tokens), &request).0,
            expected,
            "steps of {step_tokens}"
        );
    }
}

#[test]
fn a_ragged_batch_gives_what_each_prompt_gives_alone() {
    let warm = SamplingParams {
        temperature: 0.9,
        top_p: 0.95,
        seed: 11,
        ..SamplingParams::GREEDY
    };
    let mut requests = vec![
        request(PROMPT, 30),
        request("A", 7),
        request("In the middle of the night the old man rose, and", 12),
    ];
    requests[1].options.sampling = warm;
    let alone: Vec<Generation> = requests
        .iter()
        .map(|r| run(&mut engine(1, 128, 64), r).0)
        .collect();

    let mut texts = vec![String::new(); 3];
    let mut collect = |idx: usize, text: &str| {
        texts[idx].push_str(text);
        ControlFlow::Continue(())
    };
    let batch = engine(3, 128, 9)
        .generate_batch(requests.clone(), &mut collect)
        .unwrap();
    assert_eq!(batch.generations, alone);
    assert_eq!(texts, alone.iter().map(|g| g.text.clone()).collect::<Vec<_>>());
    let prompt_tokens: usize = requests.iter().map(|r| r.prompt.len()).sum();
    assert_eq!(batch.timings.prompt_tokens, prompt_tokens);
    assert!(batch.timings.prefill_tokens_per_s > 0.0 && batch.timings.decode_tokens_per_s > 0.0);
}

#[test]
fn more_requests_than_sequences_wait_their_turn() {
    let requests: Vec<Request> = (3..9).map(|tokens| request(PROMPT, tokens)).collect();
    let alone: Vec<Generation> = requests
        .iter()
        .map(|r| run(&mut engine(1, 128, 64), r).0)
        .collect();
    let mut ignore = |_: usize, _: &str| ControlFlow::Continue(());
    let batch = engine(2, 128, 16).generate_batch(requests, &mut ignore).unwrap();
    assert_eq!(batch.generations, alone);
}

#[test]
fn the_next_turn_runs_only_what_the_cache_does_not_hold() {
    let whole = request(PROMPT, 10);
    let expected = run(&mut engine(1, 64, 64), &whole).0.tokens;
    let mut engine = engine(1, 64, 64);
    let mut first = request(PROMPT, 4);
    first.keep = true;
    let (generation, timings) = engine
        .generate(first.clone(), &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(
        (&generation.tokens[..], timings.prompt_tokens),
        (&expected[..4], whole.prompt.len())
    );
    let mut next = whole.clone();
    next.prompt.extend(&generation.tokens);
    next.options.max_tokens = Some(6);
    let (generation, timings) = engine.generate(next, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(generation.tokens, expected[4..]);
    // The last token of the first turn was never run.
    assert_eq!(timings.prompt_tokens, 1);
}

#[test]
fn a_stop_string_across_tokens_ends_the_text_before_it() {
    let plain = run(&mut engine(1, 128, 64), &request(PROMPT, 30)).0;
    // From the middle of one token to the middle of a later one.
    let stop: String = plain.text.chars().skip(9).take(6).collect();
    let mut stopped = request(PROMPT, 30);
    stopped.options.stop = vec!["never in the text \u{1f409}".to_owned(), stop.clone()];
    let (generation, pieces) = run(&mut engine(1, 128, 64), &stopped);
    assert_eq!(generation.finish_reason, FinishReason::StopString);
    assert_eq!(generation.text, plain.text[..plain.text.find(&stop).unwrap()]);
    assert_eq!(pieces.concat(), generation.text);
    assert!(generation.tokens.len() < plain.tokens.len() && plain.tokens.starts_with(&generation.tokens));
}

#[test]
fn held_back_text_comes_out_at_the_end() {
    let plain = run(&mut engine(1, 128, 64), &request(PROMPT, 12)).0;
    let mut held = request(PROMPT, 12);
    held.options.stop = vec![format!("{}\u{1f409}", plain.text)];
    let (generation, pieces) = run(&mut engine(1, 128, 64), &held);
    assert_eq!((generation.text, pieces.len()), (plain.text.clone(), 1));
}

#[test]
fn a_full_context_ends_the_text_with_its_own_reason() {
    let mut unlimited = request(PROMPT, 1);
    unlimited.options.max_tokens = None;
    unlimited.options.ignore_eos = true;
    let context = unlimited.prompt.len() + 5;
    let (generation, _) = run(&mut engine(1, context, 64), &unlimited);
    assert_eq!(generation.finish_reason, FinishReason::Context);
    // Five tokens fit after the prompt; the sixth was sampled from the last of them.
    assert_eq!(generation.tokens.len(), 6);
}

#[test]
fn an_end_token_ends_the_text_unless_ignored() {
    let plain = run(&mut engine(1, 128, 64), &request(PROMPT, 20)).0;
    // A token of the middle of that text becomes the second of two end tokens.
    let eos = plain.tokens[9];
    let place = plain.tokens.iter().position(|&token| token == eos).unwrap();
    let mut config = model().config().clone();
    config.eos_tokens.push(eos);
    let weights = Weights::open(Path::new(MODEL)).unwrap();
    let model = Model::build(
        Arc::new(CpuDevice::new(0).unwrap()),
        config,
        &weights,
        &LoadOptions::default(),
    );
    let limits = SessionLimits::new(1, 128, 64);
    let mut engine = Engine::new(Arc::new(model.unwrap()), tokenizer(), limits).unwrap();

    let (generation, pieces) = run(&mut engine, &request(PROMPT, 20));
    assert_eq!(generation.finish_reason, FinishReason::Eos);
    assert_eq!(generation.tokens, plain.tokens[..place]);
    assert_eq!(
        pieces.concat(),
        tokenizer().decode(&plain.tokens[..place], true).unwrap()
    );
    let mut ignoring = request(PROMPT, 20);
    ignoring.options.ignore_eos = true;
    assert_eq!(run(&mut engine, &ignoring).0, plain);
}

#[test]
fn the_caller_can_break_off() {
    let mut pieces = 0;
    let mut engine = engine(1, 128, 64);
    let mut break_off = |_: &str| {
        pieces += 1;
        if pieces == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let (generation, _) = engine.generate(request(PROMPT, 50), &mut break_off).unwrap();
    assert_eq!((generation.finish_reason, pieces), (FinishReason::Cancelled, 3));
    assert!(
        engine.is_idle() && engine.scheduler().session().is_empty(0),
        "its pages are free"
    );
}

#[test]
fn equal_seeds_give_equal_texts_on_any_number_of_threads() {
    let mut warm = request(PROMPT, 25);
    warm.options.sampling = SamplingParams {
        temperature: 1.0,
        top_k: 100,
        seed: 5,
        ..SamplingParams::GREEDY
    };
    let text_on = |num_threads| {
        let device = Arc::new(CpuDevice::new(num_threads).unwrap());
        let model = Arc::new(Model::load(device, Path::new(MODEL), &LoadOptions::default()).unwrap());
        let limits = SessionLimits::new(1, 64, 64);
        run(&mut Engine::new(model, tokenizer(), limits).unwrap(), &warm).0
    };
    let one = text_on(1);
    assert_eq!(one, text_on(3));
    warm.options.sampling.seed = 6;
    assert_ne!(one.tokens, run(&mut engine(1, 64, 64), &warm).0.tokens);
}

#[test]
fn requests_that_cannot_begin_say_why_and_run_nothing() {
    let mut engine = engine(1, 16, 8);
    let mut refuse = |requests: Vec<Request>| {
        let result = engine.generate_batch(requests, &mut |_, _| ControlFlow::Continue(()));
        assert!(engine.is_idle());
        match result.unwrap_err() {
            GenerateError::InBatch { request, error } => (request, *error),
            other => panic!("{other}"),
        }
    };
    let ok = request("A", 1);
    let with_prompt = |prompt| Request { prompt, ..ok.clone() };
    let (index, long) = refuse(vec![ok.clone(), with_prompt(vec![5; 17])]);
    assert_eq!(index, 1);
    assert!(
        long.to_string().contains("17 tokens, but the context holds 16"),
        "{long}"
    );
    assert!(matches!(
        refuse(vec![with_prompt(vec![])]).1,
        GenerateError::EmptyPrompt
    ));
    let mut bad = ok.clone();
    bad.options.stop = vec!["x".into(), String::new()];
    assert!(matches!(
        refuse(vec![bad.clone()]).1,
        GenerateError::EmptyStop { index: 1 }
    ));
    bad.options.stop.clear();
    bad.options.sampling.temperature = -1.0;
    let error = refuse(vec![bad]).1.to_string();
    assert!(
        error.starts_with("temperature: expected a finite number >= 0"),
        "{error}"
    );
    let error = refuse(vec![with_prompt(vec![60_000])]).1.to_string();
    assert!(
        error.contains("token id 60000 is outside the vocabulary"),
        "{error}"
    );
}

#[test]
fn a_batch_leaves_the_events_of_other_requests_to_the_next_step() {
    let requests = [
        request(PROMPT, 30),
        request("A", 4),
        request("In the middle of the night", 8),
    ];
    let alone = requests.each_ref().map(|r| run(&mut engine(1, 128, 64), r).0);
    let mut engine = engine(3, 128, 64);
    let others = [0, 1].map(|index| engine.admit(requests[index].clone()).unwrap());
    let mut events = engine.step();
    let (generation, timings) = engine
        .generate(requests[2].clone(), &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(generation, alone[2]);
    assert_eq!(timings.prompt_tokens, requests[2].prompt.len());
    assert_eq!(
        engine.scheduler().num_running(),
        1,
        "the batch waits for its own requests only"
    );

    while !engine.is_idle() {
        events.extend(engine.step());
    }
    for (id, expected) in others.into_iter().zip(&alone) {
        let mut tokens = Vec::new();
        let mut finished = Vec::new();
        for event in &events {
            match event {
                Event::Token { id: of, token, .. } if *of == id => tokens.push(*token),
                Event::Finished {
                    id: of, generation, ..
                } if *of == id => finished.push(generation),
                _ => {}
            }
        }
        assert_eq!((tokens, finished), (expected.tokens.clone(), vec![expected]));
    }
    let prompt_tokens: usize = requests.iter().map(|r| r.prompt.len()).sum();
    assert_eq!(engine.timings().prompt_tokens, prompt_tokens);
}

#[test]
fn a_cancelled_request_has_no_events_left() {
    let mut engine = engine(2, 128, 64);
    let other = engine.admit(request(PROMPT, 30)).unwrap();
    let mut ignore = |_: &str| ControlFlow::Continue(());
    engine.generate(request("A", 4), &mut ignore).unwrap();
    let generation = engine.cancel(other).unwrap();
    assert_eq!(
        (generation.finish_reason, generation.tokens.len()),
        (FinishReason::Cancelled, 4)
    );
    assert!(engine.is_idle() && engine.step().is_empty());
}

#[test]
fn a_cancelled_turn_is_kept_for_the_next_one_until_its_room_is_needed() {
    let mut engine = engine(1, 64, 64);
    let mut first = request(PROMPT, 20);
    first.keep = true;
    let mut break_off = |_: &str| ControlFlow::Break(());
    let (generation, _) = engine.generate(first.clone(), &mut break_off).unwrap();
    assert_eq!(generation.finish_reason, FinishReason::Cancelled);
    assert_eq!(engine.scheduler().session().num_free_pages(), 0, "kept");
    let mut ignore = |_: &str| ControlFlow::Continue(());
    let (_, timings) = engine.generate(first, &mut ignore).unwrap();
    assert_eq!(timings.prompt_tokens, 1);
    let (generation, _) = engine.generate(request("A", 4), &mut ignore).unwrap();
    assert_eq!(generation, run(&mut self::engine(1, 64, 64), &request("A", 4)).0);
    assert_eq!(engine.scheduler().session().num_free_pages(), 1, "given way");
}

#[test]
fn requests_are_given_the_same_alone_and_among_others() {
    assert_eq!(invariance::differing(model(), 40), 0);
}

#[test]
fn a_step_says_who_began_with_what_of_the_cache_and_which_pages_are_held() {
    let mut engine = engine(2, 256, 256);
    let mut first = request(&"the sea ".repeat(50), 4);
    first.keep = true;
    let id = engine.admit(first.clone()).unwrap();
    assert_eq!(engine.step().len(), 1);
    assert_eq!(engine.last_step().begun, [(id, 0)]);
    assert!(engine.last_step().events.is_empty());
    assert_eq!(
        engine.scheduler().num_held_pages(),
        first.prompt.len().div_ceil(64)
    );
    while !engine.is_idle() {
        engine.step();
    }
    assert_eq!(engine.scheduler().num_held_pages(), 0, "what is kept gives way");
    let again = engine.admit(first.clone()).unwrap();
    engine.step();
    assert_eq!(engine.last_step().begun, [(again, first.prompt.len() - 1)]);
    let third = engine.admit(first.clone()).unwrap();
    engine.step();
    let shared = (first.prompt.len() - 1) / 64 * 64;
    assert_eq!(engine.last_step().begun, [(third, shared)]);
    assert_eq!(
        engine.scheduler().num_held_pages(),
        first.prompt.len().div_ceil(64) + 1
    );
}
