//! The distributions that sampling must follow, its ties and its errors.

use super::*;

const DRAWS: usize = 100_000;

/// Logits whose softmax at temperature 1 is proportional to `weights`.
fn logits(weights: &[f32]) -> Vec<f32> {
    weights.iter().map(|w| w.ln()).collect()
}

fn params(temperature: f32) -> SamplingParams {
    SamplingParams {
        temperature,
        seed: 7,
        ..SamplingParams::GREEDY
    }
}

fn token(logits: &[f32], params: &SamplingParams, position: usize) -> u32 {
    sample(logits, params, &TokenCounts::default(), position)
        .unwrap()
        .token
}

/// Each frequency within five standard deviations of its binomial probability; an impossible token never comes.
fn assert_distribution(params: &SamplingParams, logits: &[f32], expected: &[f64]) {
    let mut counts = vec![0usize; logits.len()];
    for position in 0..DRAWS {
        counts[token(logits, params, position) as usize] += 1;
    }
    for (token, (&count, &p)) in counts.iter().zip(expected).enumerate() {
        let (got, sigma) = (count as f64 / DRAWS as f64, (p * (1.0 - p) / DRAWS as f64).sqrt());
        assert!(
            (got - p).abs() <= 5.0 * sigma,
            "token {token}: expected {p}, got {got} ({params:?})"
        );
    }
}

#[test]
fn draws_follow_the_softmax() {
    assert_distribution(&params(1.0), &logits(&[1.0, 2.0, 7.0]), &[0.1, 0.2, 0.7]);
    // sqrt(1), sqrt(4), sqrt(9) at temperature 2
    assert_distribution(
        &params(2.0),
        &logits(&[1.0, 4.0, 9.0]),
        &[1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0],
    );
    assert_distribution(&params(0.5), &logits(&[1.0, 2.0]), &[0.2, 0.8]);
}

#[test]
fn top_k_keeps_exactly_k_and_prefers_lower_ids_among_equals() {
    let top2 = SamplingParams {
        top_k: 2,
        ..params(1.0)
    };
    assert_distribution(
        &top2,
        &logits(&[1.0, 3.0, 2.0, 6.0]),
        &[0.0, 1.0 / 3.0, 0.0, 2.0 / 3.0],
    );
    assert_distribution(&top2, &logits(&[1.0, 5.0, 5.0, 5.0]), &[0.0, 0.5, 0.5, 0.0]);
    assert_distribution(
        &SamplingParams { top_k: 9, ..top2 },
        &logits(&[3.0, 1.0]),
        &[0.75, 0.25],
    );
}

#[test]
fn top_p_keeps_the_token_that_crosses_the_threshold() {
    let nucleus = |top_p| SamplingParams { top_p, ..params(1.0) };
    let weights = logits(&[1.0, 2.0, 7.0]); // 0.1, 0.2, 0.7
    assert_distribution(&nucleus(0.69), &weights, &[0.0, 0.0, 1.0]);
    assert_distribution(&nucleus(0.75), &weights, &[0.0, 2.0 / 9.0, 7.0 / 9.0]);
    assert_distribution(&nucleus(0.95), &weights, &[0.1, 0.2, 0.7]);
}

#[test]
fn top_p_sees_what_top_k_left() {
    // After top_k = 2: 2/3 and 1/3; 0.6 of that is the first alone, 0.7 is both.
    let weights = logits(&[4.0, 2.0, 1.0, 1.0, 1.0, 1.0]);
    let both = SamplingParams {
        top_k: 2,
        top_p: 0.7,
        ..params(1.0)
    };
    assert_distribution(&both, &weights, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0, 0.0]);
    assert_distribution(
        &SamplingParams { top_p: 0.6, ..both },
        &weights,
        &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    );
}

#[test]
fn min_p_is_relative_to_the_most_likely() {
    let filtered = SamplingParams {
        min_p: 0.5,
        ..params(1.0)
    };
    assert_distribution(&filtered, &logits(&[4.0, 2.2, 1.8]), &[4.0 / 6.2, 2.2 / 6.2, 0.0]);
    // Temperature comes first: at 2 the ratio 1.8 / 4 becomes its square root, 0.67.
    let warm = SamplingParams {
        temperature: 2.0,
        ..filtered
    };
    let roots = [4f64.sqrt(), 2.2f64.sqrt(), 1.8f64.sqrt()];
    let sum: f64 = roots.iter().sum();
    assert_distribution(&warm, &logits(&[4.0, 2.2, 1.8]), &roots.map(|r| r / sum));
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    let greedy = SamplingParams::GREEDY;
    assert_eq!(token(&[0.5, 2.0, -1.0, 2.0], &greedy, 3), 1);
    assert_eq!(token(&[f32::NEG_INFINITY, -3.0], &greedy, 3), 1);
    assert_eq!(token(&[-0.0, 0.0], &greedy, 3), 0);
}

#[test]
fn a_seed_repeats_itself_and_another_does_not() {
    let run = |seed| {
        let params = SamplingParams { seed, ..params(1.0) };
        (0..50)
            .map(|position| token(&[0.0; 1000], &params, position))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn impossible_tokens_are_never_drawn_and_tiny_temperatures_are_greedy() {
    let row = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.5, f32::NEG_INFINITY];
    for position in 0..1000 {
        assert_eq!(token(&row, &params(1e-40), position), 3);
        assert!([1, 3].contains(&token(&row, &params(1e30), position)));
    }
}

#[test]
fn penalties_count_prompt_and_generated_tokens_each_in_its_way() {
    let counts = TokenCounts::new(&[0, 1], &[1, 2, 2]);
    let logits = [2.0, -2.0, 4.0, 1.0];
    let repetition = SamplingParams {
        repetition_penalty: 2.0,
        ..params(1.0)
    };
    assert_eq!(adjusted(&logits, &repetition, &counts), [1.0, -4.0, 2.0, 1.0]);
    let generated = SamplingParams {
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..params(1.0)
    };
    assert_eq!(adjusted(&logits, &generated, &counts), [2.0, -2.75, 3.0, 1.0]);
    let biased = SamplingParams {
        logit_bias: vec![(3, 10.0), (9, 1.0)],
        ..SamplingParams::GREEDY
    };
    assert_eq!(token(&logits, &biased, 0), 3);
    let huge = SamplingParams {
        repetition_penalty: f32::MIN_POSITIVE,
        ..params(1.0)
    };
    assert!(adjusted(&[f32::MAX, f32::NEG_INFINITY], &huge, &counts) == [f32::MAX, f32::NEG_INFINITY]);
}

#[test]
fn logprobs_are_of_the_models_own_distribution_and_sorted() {
    let logits = logits(&[1.0, 4.0, 1.0, 2.0]);
    let params = SamplingParams {
        num_logprobs: Some(3),
        logit_bias: vec![(0, 100.0)],
        ..SamplingParams::GREEDY
    };
    let chosen = sample(&logits, &params, &TokenCounts::default(), 0).unwrap();
    let logprobs = chosen.logprobs.unwrap();
    assert_eq!(chosen.token, 0);
    assert!((logprobs.chosen - 0.125f32.ln()).abs() < 1e-6);
    assert_eq!(
        logprobs.top.iter().map(|top| top.0).collect::<Vec<_>>(),
        [1, 3, 0]
    );
    assert!((logprobs.top[0].1 - 0.5f32.ln()).abs() < 1e-6);
}

#[test]
fn bad_logits_are_errors_that_name_the_token() {
    let fault = |logits: &[f32]| sample(logits, &params(1.0), &TokenCounts::default(), 0).unwrap_err();
    let error = fault(&[0.0, f32::NAN]);
    assert!(
        error.to_string().starts_with("logit of token 1 is NaN"),
        "{error}"
    );
    assert!(matches!(
        fault(&[f32::INFINITY]),
        SampleError::Logit { token: 0, .. }
    ));
    assert_eq!(
        fault(&[f32::NEG_INFINITY; 3]),
        SampleError::NoToken { num_logits: 3 }
    );
    assert_eq!(fault(&[]), SampleError::NoToken { num_logits: 0 });
}

#[test]
fn parameters_outside_their_range_are_refused() {
    let greedy = SamplingParams::GREEDY;
    let bad = [
        (
            SamplingParams {
                temperature: -1.0,
                ..greedy.clone()
            },
            "temperature",
        ),
        (
            SamplingParams {
                temperature: f32::NAN,
                ..greedy.clone()
            },
            "temperature",
        ),
        (
            SamplingParams {
                temperature: f32::INFINITY,
                ..greedy.clone()
            },
            "temperature",
        ),
        (
            SamplingParams {
                top_p: 0.0,
                ..greedy.clone()
            },
            "top_p",
        ),
        (
            SamplingParams {
                top_p: 1.5,
                ..greedy.clone()
            },
            "top_p",
        ),
        (
            SamplingParams {
                min_p: -0.1,
                ..greedy.clone()
            },
            "min_p",
        ),
        (
            SamplingParams {
                min_p: f32::NAN,
                ..greedy.clone()
            },
            "min_p",
        ),
        (
            SamplingParams {
                repetition_penalty: 0.0,
                ..greedy.clone()
            },
            "repetition_penalty",
        ),
        (
            SamplingParams {
                presence_penalty: f32::NAN,
                ..greedy.clone()
            },
            "presence_penalty",
        ),
        (
            SamplingParams {
                frequency_penalty: f32::INFINITY,
                ..greedy.clone()
            },
            "frequency_penalty",
        ),
        (
            SamplingParams {
                logit_bias: vec![(1, f32::NAN)],
                ..greedy.clone()
            },
            "logit_bias",
        ),
    ];
    for (bad, name) in bad {
        let error = bad.check().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: expected")), "{error}");
    }
    assert_eq!(greedy.check(), Ok(()));
}

fn mask_of(vocab_size: usize, allowed: &[u32]) -> TokenMask {
    let mut mask = TokenMask::new(vocab_size);
    allowed.iter().for_each(|&token| mask.allow(token));
    mask
}

fn masked(logits: &[f32], params: &SamplingParams, allowed: &[u32], position: usize) -> Sample {
    let mask = mask_of(logits.len(), allowed);
    sample_masked(logits, params, &TokenCounts::default(), Some(&mask), position)
}

#[test]
fn a_masked_choice_follows_the_distribution_of_what_is_left() {
    let logits = logits(&[5.0, 1.0, 3.0, 90.0]);
    let mut counts = [0; 4];
    for position in 0..DRAWS {
        let chosen = masked(&logits, &params(1.0), &[1, 2], position).unwrap();
        counts[chosen.token as usize] += 1;
    }
    assert_eq!((counts[0], counts[3]), (0, 0));
    let (got, sigma) = (
        counts[2] as f64 / DRAWS as f64,
        (0.75 * 0.25 / DRAWS as f64).sqrt(),
    );
    assert!((got - 0.75).abs() < 5.0 * sigma, "{counts:?}");
    assert_eq!(
        masked(&logits, &SamplingParams::GREEDY, &[0, 1], 0)
            .unwrap()
            .token,
        0
    );
}

#[test]
fn log_probabilities_do_not_know_of_the_mask() {
    let logits = logits(&[1.0, 2.0, 7.0]);
    let params = SamplingParams {
        num_logprobs: Some(1),
        ..SamplingParams::GREEDY
    };
    let free = sample(&logits, &params, &TokenCounts::default(), 0).unwrap();
    let chosen = masked(&logits, &params, &[0], 0).unwrap();
    assert_eq!(chosen.token, 0);
    let (free, chosen) = (free.logprobs.unwrap(), chosen.logprobs.unwrap());
    assert_eq!(chosen.top, free.top);
    assert!((chosen.chosen - 0.1_f32.ln()).abs() < 1e-6);
}

#[test]
fn a_mask_that_leaves_nothing_is_an_error_and_wrong_logits_are_one_anywhere() {
    let none = Err(SampleError::NoAllowedToken { num_logits: 3 });
    let (bias, impossible) = (
        SamplingParams {
            logit_bias: vec![(1, 1e9)],
            ..params(1.0)
        },
        f32::NEG_INFINITY,
    );
    assert_eq!(masked(&[1.0, 2.0, 3.0], &bias, &[], 0), none);
    assert_eq!(masked(&[1.0, impossible, 3.0], &bias, &[1], 0), none);
    assert_eq!(masked(&[impossible; 3], &bias, &[1], 0), none);
    let wrong = masked(&[f32::INFINITY, 1.0, 2.0], &bias, &[1], 0);
    assert!(
        matches!(wrong, Err(SampleError::Logit { token: 0, .. })),
        "{wrong:?}"
    );
}
