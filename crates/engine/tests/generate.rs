//! The generation loop on the bundled model.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use dualgrain_cpu::CpuDevice;
use dualgrain_engine::generate::{
    FinishReason, GenerateError, GenerateOptions, Generation, Request, generate, generate_batch,
};
use dualgrain_engine::sampler::SamplingParams;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{LoadOptions, Model, Session, SessionLimits, Weights};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/llama-tiny");
const PROMPT: &str = "The captain looked at the sea and";

fn model() -> &'static Arc<Model<CpuDevice>> {
    static MODEL_CELL: OnceLock<Arc<Model<CpuDevice>>> = OnceLock::new();
    MODEL_CELL.get_or_init(|| {
        let device = Arc::new(CpuDevice::new(0).unwrap());
        Arc::new(Model::load(device, Path::new(MODEL), &LoadOptions::default()).unwrap())
    })
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(Path::new(MODEL), model().config().vocab_size).unwrap()
}

fn session(num_sequences: usize, context_tokens: usize, step_tokens: usize) -> Session<CpuDevice> {
    let limits = SessionLimits {
        num_sequences,
        context_tokens,
        step_tokens,
    };
    Session::new(model().clone(), limits).unwrap()
}

fn request(prompt: &str, max_tokens: usize) -> Request {
    Request {
        prompt: tokenizer().encode(prompt, true).unwrap(),
        options: GenerateOptions {
            max_tokens: Some(max_tokens),
            ..GenerateOptions::default()
        },
    }
}

fn run(session: &mut Session<CpuDevice>, request: &Request) -> (Generation, Vec<String>) {
    session.reset(0);
    let mut pieces = Vec::new();
    let mut collect = |text: &str| {
        pieces.push(text.to_owned());
        ControlFlow::Continue(())
    };
    let (generation, _) = generate(session, &tokenizer(), request, &mut collect).unwrap();
    (generation, pieces)
}

#[test]
fn streamed_pieces_join_to_the_text_of_the_tokens() {
    let (generation, pieces) = run(&mut session(1, 128, 64), &request(PROMPT, 40));
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
    let expected = run(&mut session(1, 128, 128), &request).0;
    for step_tokens in [1, 3, 7] {
        assert_eq!(
            run(&mut session(1, 128, step_tokens), &request).0,
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
        .map(|r| run(&mut session(1, 128, 64), r).0)
        .collect();

    let mut texts = vec![String::new(); 3];
    let mut batch_session = session(3, 128, 9);
    let batch = generate_batch(&mut batch_session, &tokenizer(), &requests, &mut |idx, text| {
        texts[idx].push_str(text);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(batch.generations, alone);
    assert_eq!(texts, alone.iter().map(|g| g.text.clone()).collect::<Vec<_>>());
    let prompt_tokens: usize = requests.iter().map(|r| r.prompt.len()).sum();
    assert_eq!(batch.timings.prompt_tokens, prompt_tokens);
    assert!(batch.timings.prefill_tokens_per_s > 0.0 && batch.timings.decode_tokens_per_s > 0.0);
}

#[test]
fn a_sequence_goes_on_from_what_it_holds() {
    let whole = request(PROMPT, 10);
    let expected = run(&mut session(1, 64, 64), &whole).0.tokens;
    let mut session = session(1, 64, 64);
    let first = Request {
        prompt: whole.prompt[..4].to_vec(),
        options: GenerateOptions {
            max_tokens: Some(0),
            ..whole.options.clone()
        },
    };
    // Nothing is asked for, so nothing is run.
    assert!(run(&mut session, &first).0.tokens.is_empty());
    assert_eq!(session.len(0), 0);
    session.run(&[(0, &whole.prompt[..4])]).unwrap();
    let rest = Request {
        prompt: whole.prompt[4..].to_vec(),
        options: whole.options.clone(),
    };
    let (generation, _) = generate(&mut session, &tokenizer(), &rest, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(generation.tokens, expected);
    assert_eq!(
        session.len(0),
        whole.prompt.len() + 9,
        "all but the last token are in the cache"
    );
}

#[test]
fn a_stop_string_across_tokens_ends_the_text_before_it() {
    let plain = run(&mut session(1, 128, 64), &request(PROMPT, 30)).0;
    // From the middle of one token to the middle of a later one.
    let stop: String = plain.text.chars().skip(9).take(6).collect();
    let mut stopped = request(PROMPT, 30);
    stopped.options.stop = vec!["never in the text \u{1f409}".to_owned(), stop.clone()];
    let (generation, pieces) = run(&mut session(1, 128, 64), &stopped);
    assert_eq!(generation.finish_reason, FinishReason::StopString);
    assert_eq!(generation.text, plain.text[..plain.text.find(&stop).unwrap()]);
    assert_eq!(pieces.concat(), generation.text);
    assert!(generation.tokens.len() < plain.tokens.len() && plain.tokens.starts_with(&generation.tokens));
}

#[test]
fn held_back_text_comes_out_at_the_end() {
    let plain = run(&mut session(1, 128, 64), &request(PROMPT, 12)).0;
    let mut held = request(PROMPT, 12);
    held.options.stop = vec![format!("{}\u{1f409}", plain.text)];
    let (generation, pieces) = run(&mut session(1, 128, 64), &held);
    assert_eq!((generation.text, pieces.len()), (plain.text.clone(), 1));
}

#[test]
fn a_full_context_ends_the_text_with_its_own_reason() {
    let mut unlimited = request(PROMPT, 1);
    unlimited.options.max_tokens = None;
    unlimited.options.ignore_eos = true;
    let context = unlimited.prompt.len() + 5;
    let (generation, _) = run(&mut session(1, context, 64), &unlimited);
    assert_eq!(generation.finish_reason, FinishReason::Context);
    // Five tokens fit after the prompt; the sixth was sampled from the last of them.
    assert_eq!(generation.tokens.len(), 6);
}

#[test]
fn an_end_token_ends_the_text_unless_ignored() {
    let plain = run(&mut session(1, 128, 64), &request(PROMPT, 20)).0;
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
    let mut session = Session::new(Arc::new(model.unwrap()), session(1, 128, 64).limits()).unwrap();

    let (generation, pieces) = run(&mut session, &request(PROMPT, 20));
    assert_eq!(generation.finish_reason, FinishReason::Eos);
    assert_eq!(generation.tokens, plain.tokens[..place]);
    assert_eq!(
        pieces.concat(),
        tokenizer().decode(&plain.tokens[..place], true).unwrap()
    );
    let mut ignoring = request(PROMPT, 20);
    ignoring.options.ignore_eos = true;
    assert_eq!(run(&mut session, &ignoring).0, plain);
}

#[test]
fn the_caller_can_break_off() {
    let mut pieces = 0;
    let mut session = session(1, 128, 64);
    let (generation, _) = generate(&mut session, &tokenizer(), &request(PROMPT, 50), &mut |_| {
        pieces += 1;
        if pieces == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!((generation.finish_reason, pieces), (FinishReason::Cancelled, 3));
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
        let limits = session(1, 64, 64).limits();
        run(&mut Session::new(model, limits).unwrap(), &warm).0
    };
    let one = text_on(1);
    assert_eq!(one, text_on(3));
    warm.options.sampling.seed = 6;
    assert_ne!(one.tokens, run(&mut session(1, 64, 64), &warm).0.tokens);
}

#[test]
fn requests_that_cannot_begin_say_why_and_run_nothing() {
    let mut session = session(1, 16, 8);
    let mut refuse = |requests: &[Request]| {
        let result = generate_batch(&mut session, &tokenizer(), requests, &mut |_, _| {
            ControlFlow::Continue(())
        });
        assert_eq!(session.len(0), 0);
        result.unwrap_err()
    };
    let ok = request("A", 1);
    let long = refuse(&[Request {
        prompt: vec![5; 17],
        ..ok.clone()
    }]);
    assert!(matches!(
        long,
        GenerateError::PromptTooLong {
            prompt_tokens: 17,
            context_tokens: 16,
            ..
        }
    ));
    assert!(
        long.to_string().contains("17 tokens, but the context holds 16"),
        "{long}"
    );
    assert!(matches!(
        refuse(&[Request {
            prompt: vec![],
            ..ok.clone()
        }]),
        GenerateError::EmptyPrompt { request: 0 }
    ));
    assert!(matches!(
        refuse(&[ok.clone(), ok.clone()]),
        GenerateError::TooManyRequests {
            got: 2,
            num_sequences: 1
        }
    ));
    let mut bad = ok.clone();
    bad.options.stop = vec!["x".into(), String::new()];
    assert!(matches!(
        refuse(&[bad.clone()]),
        GenerateError::EmptyStop { index: 1, .. }
    ));
    bad.options.stop.clear();
    bad.options.sampling.temperature = -1.0;
    assert!(matches!(refuse(&[bad]), GenerateError::Sampler(_)));
    assert!(matches!(
        refuse(&[Request {
            prompt: vec![60_000],
            ..ok
        }]),
        GenerateError::Engine(_)
    ));
}
