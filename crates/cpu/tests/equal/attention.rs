//! Attention: equal to the specification, and however a prompt is cut into steps.

use dualgrain_cpu::CpuDevice;
use dualgrain_device::{
    AttentionParams, CacheFormat, CacheShape, Device, PAGE_TOKENS, StepLayout, StepLimits, naive,
};

use super::cases::{Random, assert_same, devices, name};

pub(super) struct Case {
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) sliding_window: Option<usize>,
    pub(super) soft_cap: Option<f32>,
    pub(super) alibi: bool,
    pub(super) sinks: bool,
    pub(super) format: CacheFormat,
}

/// Above and below all scores, among them, and where their powers of two vanish.
const SINKS: [f32; 7] = [0.0, -2.5, 1.75, 60.0, -1e30, 1e30, 4.0];

impl Case {
    pub(super) fn width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    pub(super) fn columns(&self) -> [std::ops::Range<usize>; 3] {
        let (q, kv) = (self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        [0..q, q..q + kv, q + kv..q + 2 * kv]
    }

    fn params(&self) -> AttentionParams {
        let slope = |head: usize| 0.5f32.powi(head as i32 + 1);
        AttentionParams {
            num_heads: self.num_heads,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            sliding_window: self.sliding_window,
            soft_cap: self.soft_cap,
            alibi_slopes: self.alibi.then(|| (0..self.num_heads).map(slope).collect()),
            sinks: self
                .sinks
                .then(|| SINKS.into_iter().cycle().take(self.num_heads).collect()),
        }
    }

    /// Each token's part of `columns` for one kv head.
    fn heads<'x>(
        &self,
        x: &'x [f32],
        columns: &std::ops::Range<usize>,
        kv_head: usize,
    ) -> impl Iterator<Item = &'x [f32]> {
        let (start, dim) = (columns.start + kv_head * self.head_dim, self.head_dim);
        x.chunks(self.width()).map(move |row| &row[start..start + dim])
    }

    /// What a float cache makes of one head.
    fn floats(&self, head: &[f32]) -> Vec<f32> {
        match self.format {
            CacheFormat::F16 => head.iter().map(|v| naive::to_f16(*v).to_f32()).collect(),
            _ => head.to_vec(),
        }
    }

    /// What an INT8 cache makes of one head: codes and a scale.
    fn codes(&self, head: &[f32], static_scale: f32) -> (Vec<i8>, f32) {
        let fixed = matches!(self.format, CacheFormat::Int8Static { .. }).then_some(static_scale);
        let mut codes = vec![0; head.len()];
        let scale = naive::to_int8(head, fixed, &mut codes);
        (codes, scale)
    }

    /// Rows [tokens, width] of one sequence through the specification.
    pub(super) fn expected(&self, x: &[f32]) -> Vec<f32> {
        let (params, [queries, keys, values]) = (self.params(), self.columns());
        let (dim, tokens) = (self.head_dim, x.len() / self.width());
        let mut out = vec![0.0; tokens * self.num_heads * dim];
        for head in 0..self.num_heads {
            let kv_head = head / (self.num_heads / self.num_kv_heads);
            let float = |columns| {
                let heads = self.heads(x, columns, kv_head).map(|head| self.floats(head));
                heads.collect::<Vec<_>>().concat()
            };
            let int8 = |columns, scale| {
                let heads = self
                    .heads(x, columns, kv_head)
                    .map(|head| self.codes(head, scale));
                let (codes, scales): (Vec<_>, Vec<_>) = heads.unzip();
                (codes.concat(), scales)
            };
            let is_float = matches!(self.format, CacheFormat::F32 | CacheFormat::F16);
            let (float_keys, float_values) = (float(&keys), float(&values));
            let ((int8_keys, key_scales), (int8_values, value_scales)) =
                (int8(&keys, STATIC_KEY_SCALE), int8(&values, STATIC_VALUE_SCALE));
            for last in 0..tokens {
                let first = self
                    .sliding_window
                    .map_or(0, |window| (last + 1).saturating_sub(window));
                let q = &x[last * self.width() + queries.start + head * dim..][..dim];
                let o = &mut out[(last * self.num_heads + head) * dim..][..dim];
                let scoring = naive::Scoring::of(&params, head);
                let range = (first, last);
                if is_float {
                    let cached = naive::CachedHead {
                        keys: &float_keys,
                        values: &float_values,
                    };
                    naive::attention(q, cached, range, scoring, o);
                } else {
                    let cached = naive::CachedHeadInt8 {
                        keys: &int8_keys,
                        key_scales: &key_scales,
                        values: &int8_values,
                        value_scales: &value_scales,
                    };
                    naive::attention_int8(q, cached, range, scoring, o);
                }
            }
        }
        out
    }

    /// The same on a device, `sequences` interleaved in steps of at most `chunk` tokens each.
    pub(super) fn run(&self, device: &CpuDevice, sequences: &[Vec<f32>], chunk: usize) -> Vec<Vec<f32>> {
        let width = self.width();
        let tokens: Vec<usize> = sequences.iter().map(|x| x.len() / width).collect();
        // Pages of the sequences alternate, so that no table is contiguous.
        let num_pages = tokens.iter().map(|t| t.div_ceil(PAGE_TOKENS)).max().unwrap();
        let table = |s: usize| {
            (0..num_pages)
                .map(|p| ((num_pages - 1 - p) * sequences.len() + s) as u32)
                .collect()
        };
        let page_tables: Vec<Vec<u32>> = (0..sequences.len()).map(table).collect();
        let shape = CacheShape {
            num_layers: 2,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            num_pages: num_pages * sequences.len(),
        };
        let mut cache = device.cache(shape, &self.format).unwrap();
        let [q, k, v] = self.columns();
        let mut outs = vec![Vec::new(); sequences.len()];
        let step_tokens = chunk * sequences.len();
        let (mut x, mut out) = (
            device.matrix(step_tokens, width).unwrap(),
            device.matrix(step_tokens, q.len()).unwrap(),
        );
        let longest = tokens.iter().copied().max().unwrap();
        let limits = StepLimits {
            tokens: step_tokens,
            sequences: sequences.len(),
            pages_per_sequence: num_pages,
        };
        let mut step = device.step(limits).unwrap();
        for start in (0..longest).step_by(chunk) {
            let (mut rows, mut positions, mut ids) = (Vec::new(), Vec::new(), Vec::new());
            for (s, sequence) in sequences.iter().enumerate() {
                for position in start..(start + chunk).min(tokens[s]) {
                    rows.extend_from_slice(&sequence[position * width..][..width]);
                    positions.push(position as u32);
                    ids.push(s as u32);
                }
            }
            let layout = StepLayout {
                positions: &positions,
                sequences: &ids,
                page_tables: &page_tables,
            };
            device.upload_step(&mut step, &layout).unwrap();
            device.upload(&mut x, &rows).unwrap();
            device
                .cache_write(&mut cache, 1, &x, k.clone(), v.clone(), &step)
                .unwrap();
            device
                .attention(&mut out, &x, q.clone(), &cache, 1, &self.params(), &step)
                .unwrap();
            let mut values = vec![0.0; positions.len() * q.len()];
            device.download(&out, 0..positions.len(), &mut values).unwrap();
            for (values, id) in values.chunks(q.len()).zip(ids) {
                outs[id as usize].extend_from_slice(values);
            }
        }
        outs
    }
}

const STATIC_KEY_SCALE: f32 = 0.004;
const STATIC_VALUE_SCALE: f32 = 0.006;

pub(super) fn formats() -> [CacheFormat; 4] {
    let [per_token, fixed] = int8_formats();
    [CacheFormat::F32, CacheFormat::F16, per_token, fixed]
}

fn int8_formats() -> [CacheFormat; 2] {
    let fixed = |scale: f32| vec![1.0, scale];
    let int8_static = CacheFormat::Int8Static {
        key_scales: fixed(STATIC_KEY_SCALE),
        value_scales: fixed(STATIC_VALUE_SCALE),
    };
    [CacheFormat::Int8, int8_static]
}

fn check(case: &Case, lengths: &[usize], chunks: &[usize]) {
    let mut r = Random(41);
    let sequences: Vec<_> = lengths
        .iter()
        .map(|tokens| r.floats(tokens * case.width()))
        .collect();
    check_sequences(case, &sequences, chunks);
}

pub(super) fn check_sequences(case: &Case, sequences: &[Vec<f32>], chunks: &[usize]) {
    let expected: Vec<_> = sequences.iter().map(|x| case.expected(x)).collect();
    for device in devices() {
        for &chunk in chunks {
            for (got, expected) in case.run(&device, sequences, chunk).iter().zip(&expected) {
                let what = format!("{}, {:?}, steps of {chunk}", name(&device), case.format);
                assert_same(got, expected, &what);
            }
        }
    }
}

#[test]
fn attention_equals_the_specification_however_the_prompt_is_cut() {
    for format in formats() {
        let case = Case {
            num_heads: 6,
            num_kv_heads: 2,
            head_dim: 20,
            sliding_window: None,
            soft_cap: None,
            alibi: false,
            sinks: false,
            format,
        };
        check(&case, &[131, 40], &[1, 7, 64, 200]);
    }
}

#[test]
fn sliding_window_and_alibi_equal_the_specification() {
    for format in [CacheFormat::F32, CacheFormat::Int8] {
        let case = Case {
            num_heads: 4,
            num_kv_heads: 4,
            head_dim: 32,
            sliding_window: Some(70),
            soft_cap: Some(1.5),
            alibi: true,
            sinks: true,
            format,
        };
        check(&case, &[150], &[1, 33, 150]);
    }
    let format = CacheFormat::F16;
    let one = Case {
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 5,
        sliding_window: Some(1),
        soft_cap: None,
        alibi: false,
        sinks: false,
        format,
    };
    check(&one, &[3, 66], &[2, 100]);
}

#[test]
fn integer_attention_equals_the_specification_for_every_shape_of_head_and_group() {
    for format in int8_formats() {
        for (head_dim, groups) in [
            (1, &[1, 7, 8][..]),
            (3, &[1, 8]),
            (64, &[1, 7, 8]),
            (80, &[2, 7]),
            (128, &[1, 5]),
            (512, &[1, 8]),
        ] {
            for &group in groups {
                let case = Case {
                    num_heads: 2 * group,
                    num_kv_heads: 2,
                    head_dim,
                    sliding_window: None,
                    soft_cap: Some(1.5),
                    alibi: group == 7,
                    sinks: group > 1,
                    format: format.clone(),
                };
                // One key, a page less one, a page, a page and one, cut so that writes begin at odd positions.
                check(&case, &[1, 63, 64, 65], &[29, 65]);
            }
        }
    }
}

/// Rows whose queries, keys or values are what rounding and i16 sums like least.
fn hostile_rows(case: &Case, tokens: usize, r: &mut Random) -> Vec<f32> {
    let [queries, keys, values] = case.columns();
    let mut x = r.floats(tokens * case.width());
    for (token, row) in x.chunks_mut(case.width()).enumerate() {
        // Codes +-127 without exception, in queries and keys with equal signs, so that sums are the largest.
        let sign = |d: usize| {
            if (d % case.head_dim).is_multiple_of(3) {
                -1.0
            } else {
                1.0
            }
        };
        let saturated = |row: &mut [f32], size: f32| {
            for (d, v) in row.iter_mut().enumerate() {
                *v = size * sign(d);
            }
        };
        match token % 8 {
            0 => row.fill(0.0),
            1 => row[queries.clone()].fill(0.0),
            2 => saturated(row, 3.0),
            // Saturates with static scales.
            3 => saturated(row, 1e3),
            4 => row[values.clone()].fill(0.0),
            // Scales so small that their inverse is no number, or nearly.
            5 => row[values.clone()].fill(1e-38),
            6 => row[keys.clone()].fill(1e-43),
            _ => {}
        }
    }
    x
}

#[test]
fn integer_attention_equals_the_specification_for_hostile_rows() {
    let mut r = Random(43);
    for format in int8_formats() {
        for (num_heads, num_kv_heads, head_dim, sliding_window) in [
            (8, 1, 64, None),
            (3, 3, 80, Some(5)),
            (14, 2, 512, Some(64)),
            (1, 1, 3, Some(65)),
        ] {
            let case = Case {
                num_heads,
                num_kv_heads,
                head_dim,
                sliding_window,
                soft_cap: None,
                alibi: false,
                sinks: num_heads > 3,
                format: format.clone(),
            };
            let sequences = [140, 65, 1].map(|tokens| hostile_rows(&case, tokens, &mut r));
            check_sequences(&case, &sequences, &[1, 37, 140]);
        }
    }
}

#[test]
fn a_page_that_another_sequence_left_changes_nothing() {
    let case = Case {
        num_heads: 8,
        num_kv_heads: 1,
        head_dim: 20,
        sliding_window: None,
        soft_cap: None,
        alibi: false,
        sinks: false,
        format: CacheFormat::Int8,
    };
    let mut r = Random(47);
    let (old, new) = (hostile_rows(&case, 64, &mut r), r.floats(11 * case.width()));
    let expected = case.expected(&new);
    let [q, k, v] = case.columns();
    for device in devices() {
        let shape = CacheShape {
            num_layers: 1,
            num_kv_heads: 1,
            head_dim: case.head_dim,
            num_pages: 1,
        };
        let mut cache = device.cache(shape, &case.format).unwrap();
        let (mut x, mut out) = (
            device.matrix(PAGE_TOKENS, case.width()).unwrap(),
            device.matrix(PAGE_TOKENS, q.len()).unwrap(),
        );
        let limits = StepLimits {
            tokens: PAGE_TOKENS,
            sequences: 1,
            pages_per_sequence: 1,
        };
        let mut step = device.step(limits).unwrap();
        for rows in [&old, &new] {
            let tokens = rows.len() / case.width();
            let positions: Vec<u32> = (0..tokens as u32).collect();
            let layout = StepLayout {
                positions: &positions,
                sequences: &vec![0; tokens],
                page_tables: &[vec![0]],
            };
            device.upload_step(&mut step, &layout).unwrap();
            device.upload(&mut x, rows).unwrap();
            device
                .cache_write(&mut cache, 0, &x, k.clone(), v.clone(), &step)
                .unwrap();
            device
                .attention(&mut out, &x, q.clone(), &cache, 0, &case.params(), &step)
                .unwrap();
        }
        let mut got = vec![0.0; expected.len()];
        device.download(&out, 0..11, &mut got).unwrap();
        assert_same(&got, &expected, &name(&device));
    }
}

#[test]
fn caches_that_can_not_be_are_refused() {
    let device = &devices()[0];
    let shape = CacheShape {
        num_layers: 2,
        num_kv_heads: 1,
        head_dim: 8,
        num_pages: 1,
    };
    let short = CacheFormat::Int8Static {
        key_scales: vec![1.0],
        value_scales: vec![1.0, 1.0],
    };
    assert!(device.cache(shape, &short).is_err());
    assert!(
        device
            .cache(
                CacheShape {
                    num_pages: usize::MAX / 16,
                    ..shape
                },
                &CacheFormat::F16
            )
            .is_err()
    );
}
