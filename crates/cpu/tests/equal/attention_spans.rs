//! Attention over more than one span: pages and spans join in the order of the specification, whatever a step holds.

use dualgrain_device::naive::SPAN_TOKENS;
use dualgrain_device::{CacheFormat, PAGE_TOKENS};

use super::attention::{Case, check_sequences, formats};
use super::cases::{Random, devices, name};

/// Rows whose queries and keys are `size` times as large as values: scores grow with its square, and references of pages
/// lie as far apart.
fn rows(case: &Case, tokens: usize, size: f32, r: &mut Random) -> Vec<f32> {
    let values = case.columns()[2].clone();
    let mut x = r.floats(tokens * case.width());
    for row in x.chunks_mut(case.width()) {
        row[..values.start].iter_mut().for_each(|v| *v *= size);
    }
    x
}

fn check(case: &Case, size: f32, lengths: &[usize], chunks: &[usize]) {
    let mut r = Random(53);
    let sequences: Vec<_> = lengths
        .iter()
        .map(|&tokens| rows(case, tokens, size, &mut r))
        .collect();
    check_sequences(case, &sequences, chunks);
}

#[test]
fn contexts_of_several_spans_equal_the_specification_however_they_are_cut() {
    for format in formats() {
        let case = Case {
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 16,
            sliding_window: None,
            soft_cap: None,
            alibi: false,
            sinks: matches!(format, CacheFormat::F32 | CacheFormat::Int8),
            format,
        };
        let lengths = [
            2 * SPAN_TOKENS + 1,
            SPAN_TOKENS + PAGE_TOKENS,
            SPAN_TOKENS,
            SPAN_TOKENS - 1,
        ];
        check(&case, 4.0, &lengths, &[1, 100, 2_000]);
    }
}

#[test]
fn windows_that_begin_inside_a_span_or_at_its_border_equal_the_specification() {
    for format in [CacheFormat::F32, CacheFormat::Int8] {
        for window in [1, PAGE_TOKENS, PAGE_TOKENS + 1, SPAN_TOKENS, SPAN_TOKENS + 70] {
            let case = Case {
                num_heads: 3,
                num_kv_heads: 1,
                head_dim: 16,
                sliding_window: Some(window),
                soft_cap: None,
                alibi: false,
                sinks: window != PAGE_TOKENS,
                format: format.clone(),
            };
            check(&case, 4.0, &[SPAN_TOKENS + 330], &[77, 1_000]);
        }
    }
}

#[test]
fn references_that_rise_until_all_before_them_vanishes_equal_the_specification() {
    for format in [CacheFormat::F16, CacheFormat::Int8] {
        let case = Case {
            num_heads: 8,
            num_kv_heads: 4,
            head_dim: 20,
            sliding_window: None,
            // A page is up to 46 powers of two above the one before.
            soft_cap: Some(1.5),
            alibi: true,
            sinks: true,
            format,
        };
        check(&case, 1.0, &[SPAN_TOKENS + 100], &[1, 90, 1_000]);
    }
}

#[test]
fn every_size_of_head_and_group_equals_the_specification_beyond_a_span() {
    for format in [CacheFormat::F16, CacheFormat::Int8] {
        for (head_dim, group) in [(16, 1), (64, 8), (80, 3), (128, 2), (256, 1)] {
            let case = Case {
                num_heads: 2 * group,
                num_kv_heads: 2,
                head_dim,
                sliding_window: None,
                soft_cap: None,
                alibi: group == 3,
                sinks: group > 1,
                format: format.clone(),
            };
            check(&case, 2.0, &[SPAN_TOKENS + 1], &[200]);
        }
    }
}

#[test]
fn scores_of_any_finite_size_equal_the_specification() {
    for format in [CacheFormat::F32, CacheFormat::Int8] {
        for size in [1e-25, 30.0, 1e6, 1e18] {
            let case = Case {
                num_heads: 2,
                num_kv_heads: 2,
                head_dim: 16,
                sliding_window: None,
                soft_cap: None,
                alibi: false,
                sinks: false,
                format: format.clone(),
            };
            check(&case, size, &[SPAN_TOKENS + 20], &[50]);
        }
    }
}

/// What is no number must reach the outputs of all queries that see it, so that the logits show it.
#[test]
fn what_is_not_finite_shows_in_every_span_after_it() {
    let mut r = Random(59);
    let place = PAGE_TOKENS + 3;
    // INT8 codes have no NaN: there a scale is infinite.
    for (format, bad) in [(CacheFormat::F32, f32::NAN), (CacheFormat::Int8, f32::INFINITY)] {
        let case = Case {
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 16,
            sliding_window: None,
            soft_cap: None,
            alibi: false,
            sinks: false,
            format,
        };
        for columns in case.columns() {
            let mut x = rows(&case, SPAN_TOKENS + 70, 2.0, &mut r);
            x[place * case.width()..][columns.clone()].fill(bad);
            let expected = case.expected(&x);
            let queries = case.columns()[0].len();
            let (clean, seen) = expected.split_at(place * queries);
            assert!(clean.iter().all(|v| v.is_finite()), "{columns:?} before {place}");
            let seen = &seen[..if columns.start == 0 { queries } else { seen.len() }];
            assert!(seen.iter().all(|v| v.is_nan()), "{columns:?} from {place}");
            for device in devices() {
                let whole = case.run(&device, std::slice::from_ref(&x), 1_000).remove(0);
                let noticed = &whole[clean.len()..][..seen.len()];
                let what = format!("{:?}, {columns:?} on {}", case.format, name(&device));
                assert!(noticed.iter().all(|v| v.is_nan()), "{what}");
            }
        }
    }
}
