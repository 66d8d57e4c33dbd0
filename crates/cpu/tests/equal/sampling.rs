//! Sampling: the tokens and log-probabilities of the specification, whatever the parameters, the logits and the threads.

use std::collections::HashSet;

use dualgrain_device::sampling::{
    Sample, SampleError, SampleRow, SamplerShape, SamplingParams, TokenCounts, TokenMask,
};
use dualgrain_device::{Device, naive};

use super::cases::{Random, devices, name};

/// What a row of logits holds.
#[derive(Clone, Copy)]
enum Logits {
    Random,
    Peaked,
    ManyTies,
    AllEqual,
    SignedZeros,
    MostlyImpossible,
    Huge,
    NotANumber,
    Infinite,
    AllImpossible,
}

const LOGITS: [Logits; 10] = [
    Logits::Random,
    Logits::Peaked,
    Logits::ManyTies,
    Logits::AllEqual,
    Logits::SignedZeros,
    Logits::MostlyImpossible,
    Logits::Huge,
    Logits::NotANumber,
    Logits::Infinite,
    Logits::AllImpossible,
];

impl Logits {
    fn row(self, r: &mut Random, vocab_size: usize) -> Vec<f32> {
        let mut row: Vec<f32> = (0..vocab_size).map(|_| self.logit(r)).collect();
        let token = r.below(vocab_size);
        match self {
            Self::MostlyImpossible => row[token] = -3.0,
            Self::NotANumber => row[token] = f32::NAN,
            Self::Infinite => row[token] = f32::INFINITY,
            _ => {}
        }
        row
    }

    fn logit(self, r: &mut Random) -> f32 {
        match self {
            Self::Random | Self::NotANumber | Self::Infinite => 5.0 * r.float(),
            Self::Peaked => 100.0 * r.float(),
            Self::ManyTies => r.below(4) as f32,
            Self::AllEqual => -7.5,
            Self::SignedZeros => [0.0, -0.0, 1e-44, -1e-44][r.below(4)],
            Self::MostlyImpossible => [r.float(), f32::NEG_INFINITY][r.below(8).min(1)],
            Self::Huge => [f32::MAX, f32::MIN, 3e38, -3e38, 1.0][r.below(5)],
            Self::AllImpossible => f32::NEG_INFINITY,
        }
    }
}

/// A sequence as its slot knows it.
struct Sequence {
    params: SamplingParams,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    mask: Option<TokenMask>,
}

/// A sequence for each combination of temperature, top-k, top-p and min-p; the rest of its parameters is random.
fn sequences(r: &mut Random, vocab_size: usize) -> Vec<Sequence> {
    let mut sequences = Vec::new();
    for temperature in [0.0, 1e-40, 0.3, 1.0, 30.0] {
        for top_k in [0, 1, 2, 40, vocab_size + 1] {
            for top_p in [1.0, 0.999, 0.5, 1e-6] {
                for min_p in [0.0, 0.05, 1.0] {
                    let params = SamplingParams {
                        temperature,
                        top_k,
                        top_p,
                        min_p,
                        ..other_params(r, vocab_size)
                    };
                    params.check().unwrap();
                    sequences.push(Sequence {
                        params,
                        prompt: tokens(r, vocab_size),
                        generated: tokens(r, vocab_size),
                        mask: None,
                    });
                }
            }
        }
    }
    sequences
}

/// Penalties, biases, log-probabilities and a seed.
fn other_params(r: &mut Random, vocab_size: usize) -> SamplingParams {
    let penalties = [
        (1.0, 0.0, 0.0),
        (1.3, 0.0, 0.0),
        (0.7, 0.5, -0.25),
        (1.0, 1.5, 0.0),
        (1.0, 0.0, 2.0),
        (f32::MIN_POSITIVE, -1e38, 3e38),
    ];
    let (repetition_penalty, presence_penalty, frequency_penalty) = penalties[r.below(penalties.len())];
    // One of the biases is for a token that is not in the vocabulary.
    let biases = [
        (0, 5.0),
        (vocab_size as u32 / 2, -100.0),
        (vocab_size as u32, 1.0),
    ];
    let num_logprobs = match r.below(20) {
        0 => Some(vocab_size + 1),
        1..4 => Some(0),
        4..8 => Some(3),
        _ => None,
    };
    SamplingParams {
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        logit_bias: match r.below(4) {
            0 => biases.to_vec(),
            1 => vec![(vocab_size as u32 - 1, f32::MAX)],
            _ => Vec::new(),
        },
        num_logprobs,
        seed: r.next(),
        ..SamplingParams::GREEDY
    }
}

/// A few tokens, some of them more than once and one perhaps beyond the vocabulary.
fn tokens(r: &mut Random, vocab_size: usize) -> Vec<u32> {
    let once: Vec<u32> = (0..r.below(6)).map(|_| r.below(vocab_size + 1) as u32).collect();
    let twice = r.below(once.len() + 1);
    [&once[..], &once[..twice]].concat()
}

/// Allows nothing, one token, some or all of them; every other time nothing is masked.
fn mask(r: &mut Random, vocab_size: usize) -> Option<TokenMask> {
    let mut mask = TokenMask::new(vocab_size);
    match r.below(8) {
        0 => {}
        1 => mask.allow(r.below(vocab_size) as u32),
        2 => (0..vocab_size).for_each(|_| mask.allow(r.below(vocab_size) as u32)),
        3 => mask.copy_from(&vec![u32::MAX; TokenMask::num_words(vocab_size)]),
        _ => return None,
    }
    Some(mask)
}

/// A sample with its floats as bits; the description of an error.
type SampleBits = Result<(u32, Option<LogprobBits>), String>;

type LogprobBits = (u32, Vec<(u32, u32)>);

fn bits(sample: &Sample) -> SampleBits {
    let describe = |error: &SampleError| format!("{error:?}");
    let chosen = sample.as_ref().map_err(describe)?;
    let logprobs = chosen.logprobs.as_ref().map(|logprobs| {
        let top = logprobs.top.iter();
        let top = top.map(|(token, logprob)| (*token, logprob.to_bits()));
        (logprobs.chosen.to_bits(), top.collect())
    });
    Ok((chosen.token, logprobs))
}

/// `rows` on the device.
pub(super) fn sample_rows<D: Device>(device: &D, rows: &[SampleRow]) -> D::SampleRows {
    let mut on_device = device.sample_rows(rows.len()).unwrap();
    device.upload_sample_rows(&mut on_device, rows).unwrap();
    on_device
}

/// A call: its rows, the logits of each, and what the specification makes of them.
struct Call {
    rows: Vec<SampleRow>,
    logits: Vec<f32>,
    expected: Vec<SampleBits>,
    /// Slots whose mask is another one from this call on.
    masked: Vec<usize>,
}

/// A call with a row of each sequence, in another order than the slots; the sequences grow by what is chosen.
fn call(r: &mut Random, sequences: &mut [Sequence], (round, vocab_size): (usize, usize)) -> Call {
    let (mut rows, mut logits, mut expected, mut masked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (slot, sequence) in sequences.iter_mut().enumerate().rev() {
        let position = r.below(100_000);
        let row = LOGITS[(slot + round) % LOGITS.len()].row(r, vocab_size);
        let counts = TokenCounts::new(&sequence.prompt, &sequence.generated);
        if r.below(3) == 0 {
            sequence.mask = mask(r, vocab_size);
            masked.push(slot);
        }
        let mask = sequence.mask.as_ref();
        let sample = naive::sample_masked(&row, &sequence.params, &counts, mask, position);
        if let (Ok(chosen), Some(mask)) = (&sample, mask) {
            assert!(mask.allows(chosen.token), "{:?}", sequence.params);
        }
        sequence
            .generated
            .extend(sample.iter().map(|chosen| chosen.token));
        rows.push(SampleRow { slot, position });
        expected.push(bits(&sample));
        logits.extend(row);
    }
    Call {
        rows,
        logits,
        expected,
        masked,
    }
}

#[test]
fn samples_equal_the_specification_call_after_call() {
    let (devices, mut r) = (devices(), Random(51));
    // Around the candidates that are sorted first (256) and then (2,048).
    for vocab_size in [1, 2, 39, 256, 257, 2_049, 5_000] {
        let shape = |sequences: &[Sequence]| SamplerShape {
            sequences: sequences.len(),
            vocab_size,
        };
        let mut sequences = sequences(&mut r, vocab_size);
        let mut samplers: Vec<_> = devices
            .iter()
            .map(|device| {
                let mut sampler = device.sampler(shape(&sequences)).unwrap();
                for (slot, s) in sequences.iter().enumerate() {
                    let begun = device.begin_sampling(&mut sampler, slot, &s.params, &s.prompt, &s.generated);
                    begun.unwrap();
                }
                sampler
            })
            .collect();
        // Every sequence meets every kind of logits once; of long rows three kinds, for the time they take.
        let rounds = if vocab_size < 2_000 { LOGITS.len() } else { 3 };
        for round in 0..rounds {
            let call = call(&mut r, &mut sequences, (round, vocab_size));
            for (device, sampler) in devices.iter().zip(&mut samplers) {
                let mut logits = device.matrix(call.rows.len(), vocab_size).unwrap();
                device.upload(&mut logits, &call.logits).unwrap();
                for &slot in &call.masked {
                    device
                        .mask_sampling(sampler, slot, sequences[slot].mask.as_ref())
                        .unwrap();
                }
                let rows = sample_rows(device, &call.rows);
                device.sample(sampler, &logits, &rows).unwrap();
                let got = device.read_samples(sampler).unwrap();
                assert_eq!(got.len(), call.rows.len());
                for ((got, expected), row) in got.iter().zip(&call.expected).zip(&call.rows) {
                    assert_eq!(
                        bits(got),
                        *expected,
                        "{vocab_size} logits, round {round}, {}: {:?}",
                        name(device),
                        sequences[row.slot].params
                    );
                }
            }
        }
    }
}

/// Tokens that rows of equal logits give at positions 0.. of one sequence each.
fn tokens_of_equal_logits(
    device: &impl Device,
    params: &SamplingParams,
    (draws, vocab_size): (usize, usize),
) -> Vec<u32> {
    let shape = SamplerShape {
        sequences: 1,
        vocab_size,
    };
    let mut sampler = device.sampler(shape).unwrap();
    device.begin_sampling(&mut sampler, 0, params, &[], &[]).unwrap();
    let mut logits = device.matrix(1, vocab_size).unwrap();
    device.upload(&mut logits, &vec![0.25; vocab_size]).unwrap();
    let draw = |position| {
        device
            .sample(
                &mut sampler,
                &logits,
                &sample_rows(device, &[SampleRow { slot: 0, position }]),
            )
            .unwrap();
        let samples = device.read_samples(&mut sampler).unwrap();
        samples[0].as_ref().unwrap().token
    };
    (0..draws).map(draw).collect()
}

#[test]
fn a_nucleus_of_equal_logits_keeps_the_lowest_ids_however_large_it_is() {
    let vocab_size = 3_000;
    // 300 and 1,500 are more than the 256 candidates that are sorted first, 2,700 more than the 2,048 that follow.
    for (top_p, kept) in [(0.05, 150), (0.1, 300), (0.5, 1_500), (0.9, 2_700)] {
        let params = SamplingParams {
            temperature: 1.0,
            top_p,
            seed: 3,
            ..SamplingParams::GREEDY
        };
        let draws = 500;
        let logits = vec![0.25; vocab_size];
        let draw = |position| naive::sample(&logits, &params, &TokenCounts::default(), position);
        let expected: Vec<u32> = (0..draws).map(|position| draw(position).unwrap().token).collect();
        // One more where top_p is a little above the fraction in f32.
        assert!(
            expected.iter().all(|&token| token <= kept),
            "{kept} of {vocab_size}"
        );
        assert!(expected.iter().any(|&token| token > kept * 9 / 10));
        for device in devices() {
            let got = tokens_of_equal_logits(&device, &params, (draws, vocab_size));
            assert_eq!(got, expected, "top_p {top_p}, {}", name(&device));
        }
    }
}

#[test]
fn a_chosen_token_is_penalized_in_the_next_call_of_its_sequence_alone() {
    let vocab_size = 300;
    for device in devices() {
        let penalized = SamplingParams {
            presence_penalty: 1e6,
            ..SamplingParams::GREEDY
        };
        assert_eq!(
            tokens_of_equal_logits(&device, &SamplingParams::GREEDY, (5, vocab_size)),
            [0; 5]
        );
        let got = tokens_of_equal_logits(&device, &penalized, (vocab_size, vocab_size));
        let expected: Vec<u32> = (0..vocab_size as u32).collect();
        assert_eq!(got, expected, "{}", name(&device));

        let shape = SamplerShape {
            sequences: 2,
            vocab_size,
        };
        let mut sampler = device.sampler(shape).unwrap();
        let mut logits = device.matrix(2, vocab_size).unwrap();
        device.upload(&mut logits, &vec![1.0; 2 * vocab_size]).unwrap();
        let rows = sample_rows(&device, &[1, 0].map(|slot| SampleRow { slot, position: 9 }));
        let mut next = |slots: &[usize]| {
            for &slot in slots {
                // Begun anew, a slot has forgotten its earlier sequence; of a prompt it takes nothing off.
                device
                    .begin_sampling(&mut sampler, slot, &penalized, &[0], &[1])
                    .unwrap();
            }
            device.sample(&mut sampler, &logits, &rows).unwrap();
            let samples = device.read_samples(&mut sampler).unwrap();
            samples
                .iter()
                .map(|sample| sample.as_ref().unwrap().token)
                .collect::<Vec<_>>()
        };
        assert_eq!(next(&[0, 1]), [0, 0]);
        assert_eq!(next(&[]), [2, 2]);
        assert_eq!(next(&[0]), [3, 0]);
        assert_eq!(next(&[]), [4, 2]);
    }
}

#[test]
fn the_cases_of_this_file_draw_many_different_tokens() {
    let (mut r, vocab_size) = (Random(52), 2_049);
    let mut sequences = sequences(&mut r, vocab_size);
    let call = call(&mut r, &mut sequences, (0, vocab_size));
    let tokens: HashSet<u32> = call.expected.iter().flatten().map(|(token, _)| *token).collect();
    assert!(tokens.len() > 60, "{} different tokens", tokens.len());
}
