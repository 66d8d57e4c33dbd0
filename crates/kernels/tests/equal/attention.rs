//! Attention: equal to the specification, and however a prompt is cut into steps.

use dualgrain_kernels::cpu::CpuBackend;
use dualgrain_kernels::{AttentionParams, Backend, CacheFormat, CacheShape, PAGE_TOKENS, Step, naive};

use super::cases::{Random, assert_same, backends, name};

struct Case {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    sliding_window: Option<usize>,
    alibi: bool,
    format: CacheFormat,
}

impl Case {
    fn width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    fn columns(&self) -> [std::ops::Range<usize>; 3] {
        let (q, kv) = (self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        [0..q, q..q + kv, q + kv..q + 2 * kv]
    }

    fn params(&self) -> AttentionParams {
        let slope = |head: usize| 0.5f32.powi(head as i32 + 1);
        AttentionParams {
            num_heads: self.num_heads,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            sliding_window: self.sliding_window,
            alibi_slopes: self.alibi.then(|| (0..self.num_heads).map(slope).collect()),
        }
    }

    /// What the cache makes of one head: codes as floats, and a scale.
    fn stored(&self, head: &[f32], static_scale: f32) -> (Vec<f32>, f32) {
        let int8 = |static_scale| {
            let mut codes = vec![0; head.len()];
            let scale = naive::to_int8(head, static_scale, &mut codes);
            (codes.into_iter().map(f32::from).collect(), scale)
        };
        match self.format {
            CacheFormat::F32 => (head.to_vec(), 1.0),
            CacheFormat::F16 => (head.iter().map(|v| naive::to_f16(*v).to_f32()).collect(), 1.0),
            CacheFormat::Int8 => int8(None),
            CacheFormat::Int8Static { .. } => int8(Some(static_scale)),
        }
    }

    /// Rows [tokens, width] of one sequence through the specification.
    fn expected(&self, x: &[f32]) -> Vec<f32> {
        let (params, [queries, keys, values]) = (self.params(), self.columns());
        let (dim, tokens) = (self.head_dim, x.len() / self.width());
        let mut out = vec![0.0; tokens * self.num_heads * dim];
        for head in 0..self.num_heads {
            let kv_head = head / (self.num_heads / self.num_kv_heads);
            let side = |columns: &std::ops::Range<usize>, scale| {
                let rows = x
                    .chunks(self.width())
                    .map(|row| self.stored(&row[columns.start + kv_head * dim..][..dim], scale));
                let (values, scales): (Vec<_>, Vec<_>) = rows.unzip();
                (values.concat(), scales)
            };
            let ((keys, key_scales), (values, value_scales)) = (side(&keys, 0.004), side(&values, 0.006));
            for last in 0..tokens {
                let first = self
                    .sliding_window
                    .map_or(0, |window| (last + 1).saturating_sub(window));
                let cached = naive::CachedHead {
                    keys: &keys,
                    key_scales: &key_scales,
                    values: &values,
                    value_scales: &value_scales,
                };
                let q = &x[last * self.width() + queries.start + head * dim..][..dim];
                let o = &mut out[(last * self.num_heads + head) * dim..][..dim];
                let slope = params.alibi_slopes.as_ref().map(|slopes| slopes[head]);
                naive::attention(q, cached, (first, last), params.scale, slope, o);
            }
        }
        out
    }

    /// The same on a backend, `sequences` interleaved in steps of at most `chunk` tokens each.
    fn run(&self, backend: &CpuBackend, sequences: &[Vec<f32>], chunk: usize) -> Vec<Vec<f32>> {
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
        let mut cache = backend.cache(shape, &self.format).unwrap();
        let [q, k, v] = self.columns();
        let mut outs = vec![Vec::new(); sequences.len()];
        let (mut x, mut out) = (backend.matrix(0, width), backend.matrix(0, q.len()));
        let longest = tokens.iter().copied().max().unwrap();
        for start in (0..longest).step_by(chunk) {
            let (mut rows, mut positions, mut ids) = (Vec::new(), Vec::new(), Vec::new());
            for (s, sequence) in sequences.iter().enumerate() {
                for position in start..(start + chunk).min(tokens[s]) {
                    rows.extend_from_slice(&sequence[position * width..][..width]);
                    positions.push(position as u32);
                    ids.push(s as u32);
                }
            }
            let step = Step {
                positions: &positions,
                sequences: &ids,
                page_tables: &page_tables,
            };
            backend.upload(&mut x, &rows);
            backend.cache_write(&mut cache, 1, &x, k.clone(), v.clone(), &step);
            backend.attention(&mut out, &x, q.clone(), &cache, 1, &self.params(), &step);
            let mut values = vec![0.0; positions.len() * q.len()];
            backend.download(&out, 0..positions.len(), &mut values);
            for (values, id) in values.chunks(q.len()).zip(ids) {
                outs[id as usize].extend_from_slice(values);
            }
        }
        outs
    }
}

fn formats() -> [CacheFormat; 4] {
    let fixed = |scale: f32| vec![1.0, scale];
    let int8_static = CacheFormat::Int8Static {
        key_scales: fixed(0.004),
        value_scales: fixed(0.006),
    };
    [CacheFormat::F32, CacheFormat::F16, CacheFormat::Int8, int8_static]
}

fn check(case: &Case, lengths: &[usize], chunks: &[usize]) {
    let mut r = Random(41);
    let sequences: Vec<_> = lengths
        .iter()
        .map(|tokens| r.floats(tokens * case.width()))
        .collect();
    let expected: Vec<_> = sequences.iter().map(|x| case.expected(x)).collect();
    for backend in backends() {
        for &chunk in chunks {
            for (got, expected) in case.run(&backend, &sequences, chunk).iter().zip(&expected) {
                let what = format!("{}, {:?}, steps of {chunk}", name(&backend), case.format);
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
            alibi: false,
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
            alibi: true,
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
        alibi: false,
        format,
    };
    check(&one, &[3, 66], &[2, 100]);
}

#[test]
fn caches_that_can_not_be_are_refused() {
    let backend = &backends()[0];
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
    assert!(backend.cache(shape, &short).is_err());
    assert!(
        backend
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
