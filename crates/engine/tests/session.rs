//! What a session refuses, and that a refusal changes nothing.

mod golden;

use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_engine::{EngineError, Model, Session, SessionError, SessionLimits};
use golden::{family, load, logits, read_config};

fn model(case: &str) -> Arc<Model<CpuDevice>> {
    let dir = family(case);
    load(&dir, read_config(&dir.join("config.json")))
}

const LIMITS: SessionLimits = SessionLimits {
    num_sequences: 2,
    context_tokens: 70,
    step_tokens: 16,
    stream_step_tokens: 16,
    num_pages: None,
    logit_rows: 2,
};

#[track_caller]
fn refusal<T>(result: Result<T, EngineError>) -> SessionError {
    match result {
        Err(EngineError::Session(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("was accepted"),
    }
}

#[test]
fn refused_steps_change_nothing() {
    let mut session = Session::new(model("llama2"), LIMITS).unwrap();
    session.run(&[(0, &[1, 2, 3])]).unwrap();
    let before = logits(&mut session, &[2]);
    let long = [1; 71];
    type Batch<'a> = &'a [(usize, &'a [u32])];
    let refused: [(Batch<'_>, &str); 7] = [
        (&[(0, &[96])], "vocabulary of 96"),
        (&[(0, &[4]), (2, &[4])], "sequence 2"),
        (&[(1, &[4]), (1, &[4])], "twice"),
        (&[(0, &long)], "its context holds 70"),
        (&[(0, &[4; 17])], "buffers hold 16"),
        (&[(0, &[4; 9]), (1, &[4; 8])], "buffers hold 16"),
        (&[(0, &[])], "at least one token"),
    ];
    for (batch, words) in refused {
        let text = refusal(session.run(batch)).to_string();
        assert!(text.contains(words), "{text}");
    }
    assert!(matches!(refusal(session.run(&[])), SessionError::Empty));
    assert!(matches!(refusal(session.prefill(0, &[])), SessionError::Empty));
    assert!(matches!(
        refusal(session.prefill(0, &[1; 68])),
        SessionError::Context { got: 71, .. }
    ));
    assert!(matches!(
        refusal(session.logits(&[3])),
        SessionError::Row { row: 3, rows: 3 }
    ));
    assert!(matches!(
        refusal(session.logits(&[0, 1, 2])),
        SessionError::LogitRows {
            got: 3,
            logit_rows: 2
        }
    ));
    assert_eq!((session.len(0), session.len(1), session.len(9)), (3, 0, 0));
    assert_eq!(logits(&mut session, &[2]), before);
}

#[test]
fn a_session_fills_every_context_to_the_last_token_and_starts_over() {
    let mut session = Session::new(model("llama2"), LIMITS).unwrap();
    for _ in 0..3 {
        for sequence in [0, 1] {
            let row = session.prefill(sequence, &[7; 70]).unwrap();
            assert_eq!(row, 70 % 16 - 1);
            assert!(matches!(
                refusal(session.run(&[(sequence, &[1])])),
                SessionError::Context { .. }
            ));
        }
        session.reset(0);
        session.truncate(1, 64);
        assert!(session.is_empty(0) && session.len(1) == 64);
        session.prefill(1, &[7; 6]).unwrap();
        session.reset(1);
    }
}

#[test]
fn limits_must_be_possible() {
    let opt = model("opt");
    let positions = opt.config().max_positions;
    for (limits, words) in [
        (
            SessionLimits {
                context_tokens: positions + 1,
                ..LIMITS
            },
            "context_tokens",
        ),
        (
            SessionLimits {
                context_tokens: 0,
                ..LIMITS
            },
            "context_tokens",
        ),
        (
            SessionLimits {
                num_sequences: 0,
                ..LIMITS
            },
            "num_sequences",
        ),
        (
            SessionLimits {
                step_tokens: 0,
                ..LIMITS
            },
            "step_tokens",
        ),
        (
            SessionLimits {
                stream_step_tokens: 0,
                ..LIMITS
            },
            "stream_step_tokens",
        ),
        (
            SessionLimits {
                num_pages: Some(1),
                ..LIMITS
            },
            "num_pages",
        ),
        (
            SessionLimits {
                logit_rows: 0,
                ..LIMITS
            },
            "logit_rows",
        ),
        (
            SessionLimits {
                num_sequences: u32::MAX as usize,
                ..LIMITS
            },
            "num_sequences",
        ),
    ] {
        let text = refusal(Session::new(Arc::clone(&opt), limits)).to_string();
        assert!(text.contains(words), "{text}");
    }
    let whole = SessionLimits {
        context_tokens: positions,
        ..LIMITS
    };
    let mut session = Session::new(opt, whole).unwrap();
    session.prefill(0, &vec![3; positions]).unwrap();
}

#[test]
fn a_session_knows_its_memory() {
    let session = Session::new(model("llama2"), LIMITS).unwrap();
    let config = session.model().config();
    // f32 keys and values of two layers, two pages of 64 tokens for each of two sequences; a device may pad.
    let expected = 4 * 2 * config.num_layers * 2 * 2 * 64 * config.kv_size();
    assert!((expected..2 * expected).contains(&session.memory().cache_bytes));
    assert!(session.memory().scratch_bytes > 4 * LIMITS.step_tokens * config.hidden_size);
}

#[test]
fn a_step_without_pages_is_refused_and_leaves_everything_as_it_was() {
    let limits = SessionLimits {
        num_pages: Some(3),
        ..LIMITS
    };
    let mut session = Session::new(model("llama2"), limits).unwrap();
    session.prefill(0, &[7; 70]).unwrap();
    session.prefill(1, &[7; 64]).unwrap();
    assert!(matches!(
        refusal(session.run(&[(1, &[1])])),
        SessionError::Pages { needed: 1, free: 0 }
    ));
    assert_eq!((session.len(1), session.num_free_pages()), (64, 0));
    session.reset(0);
    session.run(&[(1, &[1])]).unwrap();
}

#[test]
fn a_shared_prefix_gives_the_bits_of_one_that_was_run() {
    let model = model("llama3");
    let limits = SessionLimits::new(2, 100, 100);
    let tokens: Vec<u32> = (0..90).map(|i| (i * 31 + 7) % 90).collect();
    let mut session = Session::new(Arc::clone(&model), limits).unwrap();
    let row = session.prefill(0, &tokens).unwrap();
    let expected = logits(&mut session, &[row]);
    let free = session.num_free_pages();
    assert_eq!(session.share_prefix(0, 1, 89).unwrap(), 64);
    assert_eq!(session.num_free_pages(), free, "nothing is copied");
    let row = session.prefill(1, &tokens[64..]).unwrap();
    assert_eq!(logits(&mut session, &[row]), expected);
    assert!(session.share_prefix(0, 1, 64).is_err(), "sequence 1 holds tokens");
    assert!(session.share_prefix(0, 9, 64).is_err());
    session.reset(0);
    assert_eq!(session.len(1), 90);
}
