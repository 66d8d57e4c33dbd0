//! The softmax that goes by pages and spans against one of all keys at once, in f64.

use dualgrain_device::AttentionParams;
use dualgrain_device::cases::Random;
use dualgrain_device::naive::{
    CachedHead, CachedHeadInt8, SPAN_TOKENS, Scoring, attention, attention_int8, to_int8,
};

const DIM: usize = 8;

/// Keys and values of some positions, and a query.
struct Head {
    query: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Head {
    fn random(tokens: usize, size: f32, r: &mut Random) -> Self {
        let mut large = |len: usize| r.floats(len).into_iter().map(|v| v * size).collect();
        let (query, keys) = (large(DIM), large(tokens * DIM));
        let values = r.floats(tokens * DIM);
        Self { query, keys, values }
    }

    /// `softmax((q . k) * scale + slope * j) * values` in f64, with a sink among the scores.
    fn exact(&self, (first, last): (usize, usize), rule: Rule) -> Vec<f64> {
        let Rule { scale, slope, sink } = rule;
        let score = |j: usize| {
            let key = &self.keys[j * DIM..(j + 1) * DIM];
            let products = self
                .query
                .iter()
                .zip(key)
                .map(|(q, k)| f64::from(*q) * f64::from(*k));
            products.sum::<f64>() * f64::from(scale) + f64::from(slope.unwrap_or(0.0)) * j as f64
        };
        let scores: Vec<f64> = (first..=last).map(score).collect();
        let sink = sink.map(f64::from);
        let max = scores
            .iter()
            .copied()
            .chain(sink)
            .fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - max).exp());
        let output = |d: usize| {
            let weighted = (first..=last).zip(&weights);
            weighted
                .map(|(j, weight)| weight * f64::from(self.values[j * DIM + d]))
                .sum::<f64>()
                / sum
        };
        (0..DIM).map(output).collect()
    }

    fn float(&self, range: (usize, usize), rule: Rule) -> Vec<f32> {
        let mut out = vec![f32::NAN; DIM];
        let head = CachedHead {
            keys: &self.keys,
            values: &self.values,
        };
        attention(&self.query, head, range, scoring(rule), &mut out);
        out
    }

    fn int8(&self, range: (usize, usize), rule: Rule) -> Vec<f32> {
        let codes = |x: &[f32]| -> (Vec<i8>, Vec<f32>) {
            let mut codes = vec![0; x.len()];
            let heads = x.chunks(DIM).zip(codes.chunks_mut(DIM));
            let scales = heads.map(|(head, codes)| to_int8(head, None, codes)).collect();
            (codes, scales)
        };
        let ((keys, key_scales), (values, value_scales)) = (codes(&self.keys), codes(&self.values));
        let head = CachedHeadInt8 {
            keys: &keys,
            key_scales: &key_scales,
            values: &values,
            value_scales: &value_scales,
        };
        let mut out = vec![f32::NAN; DIM];
        attention_int8(&self.query, head, range, scoring(rule), &mut out);
        out
    }
}

/// How scores are made, and what joins them.
#[derive(Debug, Clone, Copy)]
struct Rule {
    scale: f32,
    slope: Option<f32>,
    sink: Option<f32>,
}

impl Rule {
    fn of_scale(scale: f32) -> Self {
        Self {
            scale,
            slope: None,
            sink: None,
        }
    }
}

fn scoring(Rule { scale, slope, sink }: Rule) -> Scoring {
    let params = AttentionParams {
        num_heads: 1,
        scale,
        sliding_window: None,
        soft_cap: None,
        alibi_slopes: slope.map(|slope| vec![slope]),
        sinks: sink.map(|sink| vec![sink]),
    };
    Scoring::of(&params, 0)
}

fn largest_difference(got: &[f32], exact: &[f64]) -> f64 {
    let differences = got
        .iter()
        .zip(exact)
        .map(|(got, exact)| (f64::from(*got) - exact).abs());
    differences.fold(
        0.0,
        |max, difference| if difference <= max { max } else { difference },
    )
}

#[test]
fn pages_and_spans_give_the_softmax_of_all_keys() {
    let mut r = Random(61);
    for (size, slope, sink) in [
        (1.0, None, None),
        (3.0, None, None),
        (1.0, Some(0.5), None),
        (2.0, Some(0.001), None),
        (1.0, None, Some(2.5)),
        (1.0, None, Some(-4.0)),
        (3.0, None, Some(11.0)),
    ] {
        let rule = Rule {
            scale: 0.35,
            slope,
            sink,
        };
        for range in [
            (0, 0),
            (0, 63),
            (0, SPAN_TOKENS - 1),
            (0, SPAN_TOKENS),
            (0, 3 * SPAN_TOKENS + 70),
            (SPAN_TOKENS - 1, SPAN_TOKENS + 1),
            (SPAN_TOKENS + 100, 3 * SPAN_TOKENS),
        ] {
            let head = Head::random(range.1 + 1, size, &mut r);
            let exact = head.exact(range, rule);
            let what = format!("size {size}, {rule:?}, keys {range:?}");
            // Scores up to 30 round at 2^-19 of a power of two, with a slope up to 800 at 2^-14.
            let rounding = if slope.is_some() { 2e-4 } else { 1e-5 };
            let difference = largest_difference(&head.float(range, rule), &exact);
            assert!(difference < rounding, "{what}: floats differ by {difference}");
            // Codes of queries, keys, weights and values: each is off by half a 127th at most.
            let difference = largest_difference(&head.int8(range, rule), &exact);
            assert!(
                difference < 0.06 * f64::from(size * size),
                "{what}: INT8 differs by {difference}"
            );
        }
    }
}

#[test]
fn what_lies_far_below_the_largest_score_vanishes_and_nothing_becomes_nan() {
    let mut r = Random(67);
    let mut head = Head::random(2 * SPAN_TOKENS, 1.0, &mut r);
    head.query = vec![1.0; DIM];
    let rule = Rule::of_scale(0.25);
    for (place, size) in [
        (3, 1e4),
        (70, 1e30),
        (SPAN_TOKENS + 5, 1e37),
        (SPAN_TOKENS + 6, -1e37),
    ] {
        head.keys[place * DIM..(place + 1) * DIM].fill(size);
        let range = (0, 2 * SPAN_TOKENS - 1);
        for out in [head.float(range, rule), head.int8(range, rule)] {
            let largest = if size > 0.0 { place } else { place - 1 };
            let value = &head.values[largest * DIM..(largest + 1) * DIM];
            for (out, value) in out.iter().zip(value) {
                assert!((out - value).abs() < 0.01, "{size}: {out} instead of {value}");
            }
        }
    }
}

#[test]
fn scores_of_negative_infinity_weigh_nothing_even_in_a_page_of_their_own() {
    let mut r = Random(71);
    let mut head = Head::random(SPAN_TOKENS + 64, 1.0, &mut r);
    head.query = vec![1.0; DIM];
    let rule = Rule::of_scale(0.25);
    let expected = head.float((SPAN_TOKENS, SPAN_TOKENS + 63), rule);
    head.keys[..SPAN_TOKENS * DIM].fill(f32::NEG_INFINITY);
    assert_eq!(head.float((0, SPAN_TOKENS + 63), rule), expected);
    // And where there is nothing else there is no softmax.
    assert!(head.float((0, 10), rule).iter().all(|v| v.is_nan()));
}

#[test]
fn a_sink_above_all_scores_leaves_nothing_and_one_below_changes_nothing() {
    let mut r = Random(73);
    let head = Head::random(SPAN_TOKENS + 9, 1.0, &mut r);
    let range = (0, SPAN_TOKENS + 8);
    let with = |sink| Rule {
        sink,
        ..Rule::of_scale(0.25)
    };
    for attend in [Head::float, Head::int8] {
        let without = attend(&head, range, with(None));
        for sink in [-60.0, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(attend(&head, range, with(Some(sink))), without, "{sink}");
        }
        for sink in [200.0, 1e30] {
            let out = attend(&head, range, with(Some(sink)));
            assert_eq!(out, [0.0; DIM], "{sink}");
        }
        let out = attend(&head, range, with(Some(f32::NAN)));
        assert!(out.iter().all(|v| v.is_nan()));
    }
}
