//! What holds for every choice of a token, whatever the logits and the parameters. Counterexamples shrink.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::Device;
use dualgrain_device::naive::{NaiveDevice, WHOLE_WEIGHT, adjusted, sample, weight};
use dualgrain_device::sampling::{
    ChosenToken, Sample, SampleError, SampleRow, SamplerShape, SamplingParams, TokenCounts,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::cases::{devices, name};
use super::sampling::sample_rows;

/// A logit that a distribution can hold: ties, ordinary ones, zeros and their neighbours, impossible and huge ones.
fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-3..=3_i8).prop_map(f32::from),
        4 => -20.0..20.0_f32,
        1 => select(vec![0.0, -0.0, 1e-44, -1e-44, 1.0, 1.0_f32.next_up()]),
        1 => Just(f32::NEG_INFINITY),
        1 => select(vec![f32::MAX, f32::MIN, 3e38, -3e38]),
    ]
}

/// Logits of at least one possible token; now and then more of them than are sorted at first.
fn row() -> impl Strategy<Value = Vec<f32>> {
    let row = prop_oneof![9 => vec(logit(), 1..40), 1 => vec(logit(), 250..600)];
    row.prop_map(|mut row| {
        if row.iter().all(|&logit| logit == f32::NEG_INFINITY) {
            row[0] = 0.5;
        }
        row
    })
}

/// Parameters without penalties and biases.
fn filters() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![1 => select(vec![0.0, 1e-40, 1e30]), 6 => 0.05..3.0_f32];
    let top_k = prop_oneof![Just(0), 1..50_usize];
    let top_p = prop_oneof![Just(1.0), 1e-6..1.0_f32];
    let min_p = prop_oneof![Just(0.0), 0.0..=1.0_f32];
    let all = (temperature, top_k, top_p, min_p, any::<u64>());
    all.prop_map(|(temperature, top_k, top_p, min_p, seed)| SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        seed,
        ..SamplingParams::GREEDY
    })
}

/// A sequence and the logits of its next token. Tokens are indices that may lie one beyond the vocabulary.
#[derive(Debug, Clone)]
struct Choice {
    row: Vec<f32>,
    params: SamplingParams,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    position: usize,
}

impl Choice {
    fn counts(&self) -> TokenCounts {
        TokenCounts::new(&self.prompt, &self.generated)
    }

    fn expected(&self) -> Sample {
        sample(&self.row, &self.params, &self.counts(), self.position)
    }
}

fn choice() -> impl Strategy<Value = Choice> {
    let repetition = prop_oneof![Just(1.0), 0.2..3.0_f32, Just(f32::MIN_POSITIVE)];
    let penalty = || prop_oneof![3 => Just(0.0), 3 => -2.0..2.0_f32, 1 => Just(3e38), 1 => Just(-3e38)];
    let tokens = || vec(any::<Index>(), 0..6);
    let changes = (
        repetition,
        penalty(),
        penalty(),
        option::of((any::<Index>(), -9.0..9.0_f32)),
    );
    let num_logprobs = option::of(0..5_usize);
    let sequence = (tokens(), tokens(), 0..1_000_000_usize);
    (row(), filters(), changes, num_logprobs, sequence).prop_map(
        |(
            row,
            filters,
            (repetition, presence, frequency, bias),
            num_logprobs,
            (prompt, generated, position),
        )| {
            let token = |index: Index| index.index(row.len() + 1) as u32;
            let params = SamplingParams {
                repetition_penalty: repetition,
                presence_penalty: presence,
                frequency_penalty: frequency,
                logit_bias: bias
                    .map(|(index, bias)| (token(index), bias))
                    .into_iter()
                    .collect(),
                num_logprobs,
                ..filters
            };
            let (prompt, generated) = (
                prompt.into_iter().map(token).collect(),
                generated.into_iter().map(token).collect(),
            );
            Choice {
                row,
                params,
                prompt,
                generated,
                position,
            }
        },
    )
}

/// The samples of a device that chooses for equal sequences in one call.
fn sampled<D: Device>(device: &D, choice: &Choice, rows: &[&[f32]]) -> Vec<Sample> {
    let shape = SamplerShape {
        sequences: rows.len(),
        vocab_size: choice.row.len(),
    };
    let mut sampler = device.sampler(shape).unwrap();
    for slot in 0..rows.len() {
        device
            .begin_sampling(
                &mut sampler,
                slot,
                &choice.params,
                &choice.prompt,
                &choice.generated,
            )
            .unwrap();
    }
    let mut logits = device.matrix(rows.len(), choice.row.len()).unwrap();
    device.upload(&mut logits, &rows.concat()).unwrap();
    let position = choice.position;
    let rows: Vec<_> = (0..rows.len()).map(|slot| SampleRow { slot, position }).collect();
    let rows = sample_rows(device, &rows);
    device.sample(&mut sampler, &logits, &rows).unwrap();
    device.read_samples(&mut sampler).unwrap()
}

/// `assert` of the samples of the naive device and of every instruction set.
fn on_every_device(
    choice: &Choice,
    rows: &[&[f32]],
    assert: impl Fn(&str, Vec<Sample>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    static DEVICES: OnceLock<Vec<CpuDevice>> = OnceLock::new();
    assert("naive", sampled(&NaiveDevice::new(), choice, rows))?;
    for device in DEVICES.get_or_init(devices) {
        assert(&name(device), sampled(device, choice, rows))?;
    }
    Ok(())
}

/// The token chosen where nothing was generated before.
fn first_token(row: &[f32], params: &SamplingParams, position: usize) -> usize {
    let chosen = sample(row, params, &TokenCounts::default(), position);
    chosen.unwrap().token as usize
}

/// Tokens that come before `token` in the order of likelihood, ties by id.
fn more_likely_than(row: &[f32], token: usize) -> Vec<usize> {
    let comes_before =
        |&other: &usize| row[other] > row[token] || (row[other] == row[token] && other < token);
    (0..row.len()).filter(comes_before).collect()
}

/// Why a token must not be drawn, if it must not: it is impossible, or a filter excludes it. In the words of the
/// parameters' documentation, with sums over the whole row; sums of so few weights are exact in f64.
fn excluded(row: &[f32], params: &SamplingParams, token: usize) -> Option<&'static str> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight_of = |&other: &usize| weight(row[other], max, 1.0 / params.temperature) as f64;
    let sum = |tokens: &[usize]| tokens.iter().map(weight_of).sum::<f64>();
    let before = more_likely_than(row, token);
    let rank = |&other: &usize| more_likely_than(row, other).len();
    let kept: Vec<usize> = (0..row.len())
        .filter(|token| params.top_k == 0 || rank(token) < params.top_k)
        .collect();
    if weight_of(&token) == 0.0 {
        Some("it has no weight")
    } else if !kept.contains(&token) {
        Some("top_k")
    } else if !before.is_empty() && sum(&before) >= f64::from(params.top_p) * sum(&kept) {
        Some("top_p")
    } else if weight_of(&token) < f64::from(params.min_p) * WHOLE_WEIGHT as f64 {
        Some("min_p")
    } else {
        None
    }
}

/// The largest logit's size in a row whose log-probabilities are summed up.
const LARGEST: f32 = 20.0;

/// By how much such a sum may differ from 1, in parts: the sum of up to 38 numbers in a lane is off by 38 * 2^-24, an exponential by
/// 2^-22, and the logarithm, below 32, by 2^-20.
const ROUNDING: f64 = 5e-6;

proptest! {
    #[test]
    fn every_device_chooses_what_the_specification_chooses(choice in choice()) {
        let expected = choice.expected();
        // Twice in one call: a choice depends on seed and position, not on the slot or on what is beside it.
        on_every_device(&choice, &[&choice.row, &choice.row], |device, samples| {
            for sample in samples {
                prop_assert_eq!(&sample, &expected, "{}", device);
            }
            Ok(())
        })?;
    }

    #[test]
    fn what_is_no_distribution_is_an_error_of_its_row_alone(
        choice in choice(),
        at in any::<Index>(),
        wrong in select(vec![f32::NAN, -f32::NAN, f32::INFINITY]),
    ) {
        let expected = choice.expected();
        let (mut damaged, at) = (choice.row.clone(), at.index(choice.row.len()));
        damaged[at] = wrong;
        let impossible = vec![f32::NEG_INFINITY; choice.row.len()];
        on_every_device(&choice, &[&damaged, &choice.row, &impossible], |device, samples| {
            let named = |sample: &Sample| matches!(sample, Err(SampleError::Logit { token, .. }) if *token == at);
            prop_assert!(named(&samples[0]), "{device}: {:?}", samples[0]);
            prop_assert_eq!(&samples[1], &expected, "{}", device);
            let num_logits = impossible.len();
            prop_assert_eq!(&samples[2], &Err(SampleError::NoToken { num_logits }), "{}", device);
            Ok(())
        })?;
    }

    #[test]
    fn greedy_takes_the_largest_logit_and_of_equals_the_lowest_id(choice in choice(), top_1 in any::<bool>()) {
        let mut choice = choice;
        match top_1 {
            true => choice.params.top_k = 1,
            false => choice.params.temperature = 0.0,
        }
        let row = adjusted(&choice.row, &choice.params, &choice.counts());
        let token = choice.expected().unwrap().token as usize;
        prop_assert_eq!(more_likely_than(&row, token), Vec::<usize>::new());
    }

    #[test]
    fn what_a_filter_excludes_is_never_drawn(row in row(), params in filters(), position in 0..1_000_usize) {
        prop_assume!(!params.is_greedy());
        for position in position..position + 20 {
            let token = first_token(&row, &params, position);
            prop_assert_eq!(excluded(&row, &params, token), None, "token {}", token);
        }
    }

    #[test]
    fn log_probabilities_are_sorted_and_sum_to_one_at_most(choice in choice(), count in 0..700_usize) {
        let mut choice = choice;
        choice.params.num_logprobs = Some(count);
        let ChosenToken { token, logprobs } = choice.expected().unwrap();
        let logprobs = logprobs.unwrap();
        prop_assert_eq!(logprobs.top.len(), count.min(choice.row.len()));
        prop_assert!(logprobs.top.is_sorted_by(|a, b| a.1 >= b.1));
        let mut ids = BTreeSet::new();
        for &(id, logprob) in &logprobs.top {
            prop_assert!(ids.insert(id) && logprob <= 0.0);
            prop_assert!(id != token || logprob == logprobs.chosen);
        }
        // log_softmax rounds `max + ln(sum)`, so a huge maximum swallows the logarithm.
        let max = choice.row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        prop_assume!(max.abs() <= LARGEST);
        let sum: f64 = logprobs.top.iter().map(|&(_, logprob)| f64::from(logprob).exp()).sum();
        prop_assert!(sum <= 1.0 + ROUNDING, "{sum}");
        prop_assert!(logprobs.top.len() < choice.row.len() || sum >= 1.0 - ROUNDING, "{sum}");
    }
}

/// How often a token of the property below is looked for: one of its five tokens weighs at least 0.05 / 4.05 of all, so it is missed
/// once in 10^21 times.
const DRAWS: usize = 4_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_tokens_that_can_be_drawn_do_not_depend_on_the_order_of_the_vocabulary(
        row in vec(-4_000..4_000_i16, 1..=5),
        params in filters(),
        order in Just([0, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        // Unequal logits: of equal ones the lower id comes first.
        let unequal: BTreeSet<i16> = row.iter().copied().collect();
        prop_assume!(!params.is_greedy() && unequal.len() == row.len());
        let params = SamplingParams { min_p: params.min_p.max(0.05), ..params };
        let row: Vec<f32> = row.iter().map(|&logit| f32::from(logit) / 1_000.0).collect();
        let order: Vec<usize> = order.into_iter().filter(|&token| token < row.len()).collect();
        let shuffled: Vec<f32> = order.iter().map(|&token| row[token]).collect();
        let drawn = |row: &[f32]| -> BTreeSet<usize> {
            (0..DRAWS).map(|position| first_token(row, &params, position)).collect()
        };
        let kept: BTreeSet<usize> =
            (0..row.len()).filter(|&token| excluded(&row, &params, token).is_none()).collect();
        prop_assert_eq!(&drawn(&row), &kept);
        prop_assert_eq!(drawn(&shuffled).into_iter().map(|token| order[token]).collect::<BTreeSet<_>>(), kept);
    }
}
