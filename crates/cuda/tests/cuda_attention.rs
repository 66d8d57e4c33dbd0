//! The paged cache and attention on a card against the specification, bit for bit.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. `--cases N` (default 300);
//! `--times` prints times afterwards: tokens of many sequences over long contexts, and prompts.

mod attention_times;
mod card;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dualgrain_cuda::{
    Attended, Attention, AttentionWorkspace, Before, Buffer, CacheWrite, CudaError, Gpu, Input, Jit,
    PagedCache, Quantize, QuantizedTokens, RotatedQueries, StepTokens, TokenCodes,
};
use dualgrain_device::cases::Random;
use dualgrain_device::naive::{self, NaiveDevice};
use dualgrain_device::{
    ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, PAGE_TOKENS, StepLayout, StepLimits,
};

fn main() -> ExitCode {
    card::compare("attention", 300, compare_all, attention_times::print_all)
}

/// A sequence of a step: positions before it, and tokens in it.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    before: usize,
    tokens: usize,
}

/// A step of attention over what earlier steps have written.
struct Case {
    shape: CacheShape,
    format: CacheFormat,
    params: AttentionParams,
    sequences: Vec<Sequence>,
    page_tables: Vec<Vec<u32>>,
    layer: usize,
    /// Of all positions before the step, sequence by sequence.
    history: Vec<f32>,
    /// Of the step.
    x: Vec<f32>,
    /// Of the step's tokens, where their heads are rotated.
    angles: Option<Vec<f32>>,
    /// Attention rotates the queries of runs, where its kernel does so.
    rotates_late: bool,
    /// Of their outputs, where these become codes.
    scale: ActivationScale,
}

impl Case {
    fn new(r: &mut Random) -> Self {
        // Few pairs: each is compiled for every format.
        let head_dims = [64, 64, 128, 128, 128, 80, 96, 256, 256, 8, 16, 40, 33, 160, 512];
        let groups = [1, 8, 4, 4, 7, 1, 3, 2, 8, 4, 2, 12, 3, 4, 8];
        // Now and then prompts alone, of heads that warp groups take.
        let prompts = r.below(4) == 0;
        let pair = if prompts {
            2 + r.below(4)
        } else {
            r.below(groups.len())
        };
        let (head_dim, group) = (head_dims[pair], groups[pair]);
        let num_kv_heads = 1 + r.below(3);
        let shape = CacheShape {
            num_layers: 1 + r.below(2),
            num_kv_heads,
            head_dim,
            num_pages: 0,
        };
        let mut scales = |size: f32| (0..shape.num_layers).map(|_| r.float().abs() * size).collect();
        let formats = [
            CacheFormat::F32,
            CacheFormat::F16,
            CacheFormat::Int8,
            CacheFormat::Int8Static {
                key_scales: scales(0.02),
                value_scales: scales(0.02),
            },
            CacheFormat::Int8,
        ];
        let format = formats[if prompts {
            2 + r.below(3)
        } else {
            r.below(formats.len())
        }]
        .clone();
        // Now and then more spans than a card takes at once.
        let many = r.below(12) == 0;
        let count = if many { 15 + r.below(30) } else { 1 + r.below(4) };
        let mut sequences: Vec<Sequence> = (0..count).map(|_| Self::sequence(r, many)).collect();
        let rotated = head_dim % 64 == 0 && r.below(2) == 0;
        if rotated && !prompts && r.below(4) > 0 {
            // As in decoding.
            sequences.iter_mut().for_each(|sequence| sequence.tokens = 1);
        }
        if prompts {
            sequences.truncate(3);
            for sequence in &mut sequences {
                let most = [40, 120, 300][r.below(3)];
                sequence.tokens = 32 + r.below(most);
            }
            // One that decodes beside prompts.
            if sequences.len() > 1 && r.below(2) == 0 {
                sequences[0].tokens = 1;
            }
        }
        let params = Self::params(r, num_kv_heads * group, head_dim, pair % 3 == 2);
        let mut case = Self {
            shape,
            format,
            params,
            layer: r.below(shape.num_layers),
            sequences,
            page_tables: Vec::new(),
            history: Vec::new(),
            x: Vec::new(),
            angles: None,
            rotates_late: r.below(3) > 0,
            scale: match r.below(4) {
                0 => ActivationScale::Static(0.02),
                _ => ActivationScale::PerToken,
            },
        };
        case.shuffle_pages(r);
        let before = case.sequences.iter().map(|sequence| sequence.before).sum();
        let now = case.sequences.iter().map(|sequence| sequence.tokens).sum();
        case.history = case.rows(r, before);
        case.x = case.rows(r, now);
        if rotated {
            case.angles = Some(r.floats(now * head_dim));
        }
        case
    }

    fn params(r: &mut Random, num_heads: usize, head_dim: usize, alibi: bool) -> AttentionParams {
        AttentionParams {
            num_heads,
            scale: 1.0 / (head_dim as f32).sqrt(),
            sliding_window: (r.below(3) == 0).then(|| [1, 2, 16, 63, 64, 65, 100, 500, 513][r.below(9)]),
            soft_cap: (r.below(4) == 0).then(|| [0.5, 5.0, 50.0][r.below(3)]),
            alibi_slopes: alibi.then(|| (0..num_heads).map(|h| 0.5f32.powi(h as i32 % 9 + 1)).collect()),
            sinks: (r.below(3) == 0).then(|| {
                let sinks = [0.0, -2.5, 1.75, 60.0, -1e30, 1e30, 4.0];
                sinks.into_iter().cycle().take(num_heads).collect()
            }),
        }
    }

    fn sequence(r: &mut Random, short: bool) -> Sequence {
        let before = match r.below(6) {
            0 => 0,
            1..=4 if short => r.below(150),
            1 => [63, 64, 65, 127, 128, 511, 512, 513, 1_023, 1_024][r.below(10)],
            2 => 500 + r.below(700),
            _ => r.below(300),
        };
        let tokens = match r.below(6) {
            0 => 1 + r.below(8),
            1 if !short => 32 + r.below(100),
            _ => 1,
        };
        Sequence { before, tokens }
    }

    fn shuffle_pages(&mut self, r: &mut Random) {
        let pages = |s: &Sequence| (s.before + s.tokens).div_ceil(PAGE_TOKENS);
        let needed: usize = self.sequences.iter().map(pages).sum();
        self.shape.num_pages = needed + r.below(3);
        let mut free: Vec<u32> = (0..self.shape.num_pages as u32).collect();
        for i in (1..free.len()).rev() {
            free.swap(i, r.below(i + 1));
        }
        let tables = self
            .sequences
            .iter()
            .map(|s| free.split_off(free.len() - pages(s)));
        self.page_tables = tables.collect();
    }

    fn columns(&self) -> usize {
        (self.params.num_heads + 2 * self.shape.num_kv_heads) * self.shape.head_dim
    }

    /// Rows of queries, keys and values; now and then zeros, huge numbers, or none at all.
    fn rows(&self, r: &mut Random, rows: usize) -> Vec<f32> {
        let columns = self.columns();
        let mut values = Vec::with_capacity(rows * columns);
        let size = [0.3, 1.0, 1.0, 3.0, 20.0][r.below(5)];
        let wild = r.below(8) == 0;
        for _ in 0..rows {
            let size = size
                * match r.below(30) {
                    0 => 0.0,
                    1 => 1e-30,
                    2 if wild => 1e18,
                    _ => 1.0,
                };
            values.extend((0..columns).map(|_| r.float() * size));
            if wild && r.below(100) == 0 {
                let last = values.len() - 1 - r.below(columns);
                values[last] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][r.below(3)];
            }
        }
        values
    }

    fn limits(&self) -> StepLimits {
        StepLimits {
            tokens: self.sequences.iter().map(|s| s.tokens.max(s.before)).sum(),
            sequences: self.sequences.len(),
            pages_per_sequence: self.page_tables.iter().map(Vec::len).max().unwrap_or(0),
        }
    }

    /// Positions and sequences of what came before, or of the step.
    fn tokens(&self, before: bool) -> (Vec<u32>, Vec<u32>) {
        let (mut positions, mut sequences) = (Vec::new(), Vec::new());
        for (i, s) in self.sequences.iter().enumerate() {
            let range = if before {
                0..s.before
            } else {
                s.before..s.before + s.tokens
            };
            sequences.extend(range.clone().map(|_| i as u32));
            positions.extend(range.map(|position| position as u32));
        }
        (positions, sequences)
    }

    fn ranges(&self) -> [std::ops::Range<usize>; 3] {
        let (q, kv) = (self.params.num_heads, self.shape.num_kv_heads);
        [0..q, q..q + kv, q + kv..q + 2 * kv]
            .map(|heads| heads.start * self.shape.head_dim..heads.end * self.shape.head_dim)
    }

    fn expected(&self) -> Vec<f32> {
        let device = NaiveDevice::new();
        let mut cache = device.cache(self.shape, &self.format).expect("a cache");
        let mut step = device.step(self.limits()).expect("a step");
        let [queries, keys, values] = self.ranges();
        let (width, head_dim) = (queries.len(), self.shape.head_dim);
        let mut out = device.matrix(self.limits().tokens, width).expect("a matrix");
        let mut x = device
            .matrix(self.limits().tokens, self.columns())
            .expect("a matrix");
        for (rows, before) in [(&self.history, true), (&self.x, false)] {
            let (positions, sequences) = self.tokens(before);
            let layout = StepLayout {
                positions: &positions,
                sequences: &sequences,
                page_tables: &self.page_tables,
            };
            device.upload_step(&mut step, &layout).expect("a step");
            device.upload(&mut x, rows).expect("rows");
            if let (Some(angles), false) = (&self.angles, before) {
                let mut rotation = device.matrix(positions.len(), head_dim).expect("a matrix");
                device.upload(&mut rotation, angles).expect("angles");
                let heads = queries.start..keys.end;
                device.rope(&mut x, heads, head_dim, &rotation).expect("rotated");
            }
            let write = device.cache_write(&mut cache, self.layer, &x, keys.clone(), values.clone(), &step);
            write.expect("written");
        }
        let attended = device.attention(&mut out, &x, queries, &cache, self.layer, &self.params, &step);
        attended.expect("attended");
        let mut result = vec![0.0; device.rows(&out) * width];
        device
            .download(&out, 0..device.rows(&out), &mut result)
            .expect("downloaded");
        result
    }

    /// Outputs of the step; and their codes, where one kernel does everything.
    fn on_card(&self, jit: &Jit, gpu: &Gpu) -> Result<(Vec<f32>, Option<TokenCodes>), CudaError> {
        let mut cache = PagedCache::new(gpu, self.shape, &self.format)?;
        // A large step's first tokens are attended whole: now and then all of them.
        let mut step = match self.layer {
            0 => StepTokens::with_spread_pages(gpu, self.limits(), 0)?,
            _ => StepTokens::new(gpu, self.limits())?,
        };
        let write = CacheWrite::new(jit, gpu, &cache)?;
        let mut attention = Attention::new(jit, gpu, &cache, &self.params)?;
        // Small steps leave no block more than one tile, unless blocks are few.
        if self.layer == 0 {
            attention.limit_prompt_blocks(1 + self.shape.num_pages % 9);
        }
        let workspace =
            AttentionWorkspace::new(gpu, self.limits(), self.params.num_heads, self.shape.head_dim)?;
        let [queries, keys, values] = self.ranges();
        let columns = self.columns();
        for (rows, before) in [(&self.history, true), (&self.x, false)] {
            let (positions, sequences) = self.tokens(before);
            step.fill(&StepLayout {
                positions: &positions,
                sequences: &sequences,
                page_tables: &self.page_tables,
            })?;
            let x = gpu.upload(rows)?;
            if let (Some(angles), false, true) = (&self.angles, before, attention.joins(&step)) {
                let angles = gpu.upload(angles)?;
                let kernels = (&attention, &write);
                return self.joined_on_card(
                    (jit, gpu),
                    (&x, &angles),
                    kernels,
                    &mut cache,
                    (&step, &workspace),
                );
            }
            let angles = self.angles.as_ref().filter(|_| !before);
            let angles = angles.map(|angles| gpu.upload(angles)).transpose()?;
            let late = angles
                .as_ref()
                .filter(|_| self.rotates_late && attention.rotates_runs(&step));
            match &angles {
                Some(angles) => {
                    let of = match late {
                        Some(_) => RotatedQueries::OfSpans,
                        None => RotatedQueries::All,
                    };
                    let (ranges, place) = ((self.ranges(), of), (&mut cache, self.layer));
                    write.launch_rotated((&x, columns), ranges, angles, place, &step)?;
                }
                None => {
                    let places = (keys.clone(), values.clone());
                    write.launch((&x, columns), places, &mut cache, self.layer, &step)?;
                }
            }
            if !before {
                let mut result = vec![0.0f32; positions.len() * queries.len()];
                let out = gpu.filled(4 * result.len(), 0xff)?;
                // Twice: the second launch finds the counters as the first has left them.
                for _ in 0..2 {
                    let (x, queries, place) = ((&x, columns), queries.clone(), (&cache, self.layer));
                    match late {
                        Some(angles) => attention.launch_rotating(
                            &out,
                            x,
                            (queries, angles),
                            place,
                            (&step, &workspace),
                        )?,
                        None => attention.launch(&out, x, queries, place.0, place.1, &step, &workspace)?,
                    }
                }
                out.read(0, &mut result)?;
                return Ok((result, None));
            }
            gpu.synchronize()?;
        }
        unreachable!("the step comes last")
    }

    /// The step by one kernel, twice: the second launch finds the counters as the first has left them. Then attention alone, by the keys
    /// and values which that kernel has left in the cache.
    fn joined_on_card(
        &self,
        (jit, gpu): (&Jit, &Gpu),
        (x, angles): (&Buffer, &Buffer),
        (attention, write): (&Attention, &CacheWrite),
        cache: &mut PagedCache,
        (step, workspace): (&StepTokens, &AttentionWorkspace),
    ) -> Result<(Vec<f32>, Option<TokenCodes>), CudaError> {
        let (from, queries) = ((x, self.columns()), self.ranges()[0].clone());
        let mut codes = QuantizedTokens::empty(gpu, step.num_tokens(), queries.len())?;
        let mut result = vec![0.0f32; step.num_tokens() * queries.len()];
        let out = gpu.filled(4 * result.len(), 0xff)?;
        for _ in 0..2 {
            let (place, to) = ((&mut *cache, self.layer), Attended::Floats(&out));
            attention.launch_joined(to, from, self.ranges(), angles, place, (step, workspace))?;
            if attention.makes_codes(step) {
                let (place, to) = ((&mut *cache, self.layer), Attended::Codes(&mut codes, self.scale));
                attention.launch_joined(to, from, self.ranges(), angles, place, (step, workspace))?;
            }
        }
        out.read(0, &mut result)?;
        if !attention.makes_codes(step) {
            Quantize::new(jit, gpu, Before::Nothing, Input::F32)?
                .launch(&out, None, self.scale, &mut codes)?;
        }
        let codes = codes.download()?;
        // What rotates queries for attention alone.
        let mut other = PagedCache::new(gpu, self.shape, &self.format)?;
        let ranges = (self.ranges(), RotatedQueries::All);
        write.launch_rotated(from, ranges, angles, (&mut other, self.layer), step)?;
        attention.launch(&out, from, queries, cache, self.layer, step, workspace)?;
        out.read(0, &mut result)?;
        Ok((result, Some(codes)))
    }

    fn words(&self) -> String {
        let AttentionParams {
            num_heads,
            sliding_window,
            soft_cap,
            alibi_slopes,
            sinks,
            ..
        } = &self.params;
        format!(
            "{} {:?}, {num_heads} heads, window {sliding_window:?}, cap {soft_cap:?}, ALiBi {}, sinks {}, rotated {} (late: {}), {:?}",
            self.shape,
            self.format,
            alibi_slopes.is_some(),
            sinks.is_some(),
            self.angles.is_some(),
            self.rotates_late,
            self.sequences
        )
    }
}

/// Whether codes, sums and scales are those of some outputs.
fn are_codes_of(got: &TokenCodes, outputs: &[f32], scale: ActivationScale) -> bool {
    let width = outputs.len() / got.scales.len();
    let mut codes = vec![0i8; outputs.len()];
    let rows = outputs.chunks_exact(width).zip(codes.chunks_exact_mut(width));
    let scales: Vec<f32> = rows
        .map(|(row, codes)| naive::quantize_row(row, scale, codes))
        .collect();
    let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum();
    let sums: Vec<i32> = codes.chunks_exact(width).map(sum).collect();
    let bits = |scales: &[f32]| scales.iter().map(|scale| scale.to_bits()).collect::<Vec<_>>();
    got.codes == codes && got.sums == sums && bits(&got.scales) == bits(&scales)
}

/// NaN equals NaN: no rule says which one.
fn differ(got: f32, expected: f32) -> bool {
    got.to_bits() != expected.to_bits() && !(got.is_nan() && expected.is_nan())
}

/// Words for the first difference between the card and the specification.
fn difference(case: &Case, jit: &Jit, gpu: &Gpu) -> Result<Option<String>, CudaError> {
    let ((got, codes), expected) = (case.on_card(jit, gpu)?, case.expected());
    if codes.is_some_and(|codes| !are_codes_of(&codes, &expected, case.scale)) {
        return Ok(Some(format!("{}: codes, sums or scales differ", case.words())));
    }
    let places = got.iter().zip(&expected).enumerate();
    let mut wrong = places.filter(|&(_, (&got, &expected))| differ(got, expected));
    Ok(wrong.next().map(|(at, (got, expected))| {
        let row = case.params.num_heads * case.shape.head_dim;
        let place = (at / row, at % row / case.shape.head_dim, at % case.shape.head_dim);
        format!(
            "{}: {} of {} differ, the first at (token, head, element) {place:?}: {got} instead of {expected}",
            case.words(),
            1 + wrong.count(),
            row * case.x.len() / case.columns()
        )
    }))
}

/// Steps that differ; all threads of the host compile and compute what is expected.
fn compare_all(jit: &Jit, gpu: &Gpu, count: usize) -> Result<usize, CudaError> {
    let mut r = Random(23);
    let cases: Vec<Case> = (0..count).map(|_| Case::new(&mut r)).collect();
    let (next, failed, error) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match difference(case, jit, gpu) {
                        Ok(None) => {}
                        Ok(Some(words)) => {
                            println!("FAILED: {words}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(found) => *error.lock().expect("no panic while held") = Some(found),
                    }
                }
            });
        }
    });
    match error.into_inner().expect("all threads ended") {
        Some(error) => Err(error),
        None => Ok(failed.into_inner()),
    }
}
