//! Sampling and the logarithm of the softmax on a card, against the specification, bit for bit.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. `--cases N` (default 300);
//! `--times` prints microseconds afterwards, for 1, 16 and 256 rows of 128,256 logits.

mod card;

use std::cell::RefCell;
use std::process::ExitCode;

use dualgrain_cuda::{
    Buffer, CudaError, Gpu, Jit, LastTokens, LogSoftmax, MOST_TOP_LOGPROBS, SampleRows, Sampler, Sampling,
    rotation_copies, times_s,
};
use dualgrain_device::cases::Random;
use dualgrain_device::naive;
use dualgrain_device::sampling::{
    HostSampler, Sample, SampleError, SampleRow, SamplerShape, SamplingParams, TokenMask,
};

/// From here on the specification's rows are computed by a thread each.
const LONG_ROW: usize = 10_000;

fn main() -> ExitCode {
    card::compare(
        "sampling",
        300,
        |jit, gpu, count| Ok(compare_all(jit, gpu, count)? + compare_log_softmax(jit, gpu, count / 10)?),
        print_times,
    )
}

fn pick<T: Copy>(r: &mut Random, all: &[T]) -> T {
    all[r.below(all.len())]
}

/// Roughly a normal distribution of deviation 1.
fn bell(r: &mut Random) -> f32 {
    (0..6).map(|_| r.float()).sum::<f32>() * 0.7
}

/// A row that is hard to divide: ties, neighbouring floats, huge differences, few possible tokens.
fn hostile_row(r: &mut Random, len: usize) -> Vec<f32> {
    let size = pick(r, &[1e-3, 1.0, 3.0, 10.0, 30.0, 1e30]);
    let kind = r.below(8);
    let mut row: Vec<f32> = (0..len)
        .map(|_| match kind {
            0 => r.float() * size,
            1 => (r.below(5) as f32 - 2.0) * size,
            2 => size,
            3 => bell(r) * size,
            4 if r.below(50) > 0 => f32::NEG_INFINITY,
            5 => pick(r, &[f32::MAX, f32::MIN, 0.0, -0.0, 1e-45, -1e-45, 1.0]),
            6 => f32::from_bits(size.to_bits() + r.below(40) as u32),
            _ => bell(r) * 4.0 - if r.below(3) == 0 { 20.0 } else { 0.0 },
        })
        .collect();
    let at = r.below(len);
    match r.below(30) {
        0 => row[at] = f32::NAN,
        1 => row[at] = f32::INFINITY,
        2 => row.fill(f32::NEG_INFINITY),
        3 => (row[at], row[len - 1]) = (f32::INFINITY, f32::NAN),
        _ => {}
    }
    row
}

fn hostile_params(r: &mut Random, vocab: usize) -> SamplingParams {
    let mut params = SamplingParams {
        temperature: pick(r, &[0.0, 1e-45, 1e-3, 0.1, 0.7, 1.0, 1.0, 1.5, 10.0, 100.0, 3e38]),
        seed: r.next(),
        ..SamplingParams::GREEDY
    };
    if r.below(2) == 0 {
        let any = 1 + r.below(vocab);
        params.top_k = pick(r, &[1, 2, 3, 50, any, vocab - 1, vocab, vocab + 1, usize::MAX]);
    }
    if r.below(2) == 0 {
        let any = r.float().abs().max(1e-3);
        params.top_p = pick(
            r,
            &[
                any,
                any,
                1e-7,
                f32::MIN_POSITIVE,
                0.1,
                0.5,
                0.9,
                0.95,
                0.999,
                0.999_999_9,
            ],
        );
    }
    if r.below(3) == 0 {
        params.min_p = pick(r, &[1e-12, 1e-9, 0.05, 0.5, 0.999, 1.0]);
    }
    if r.below(3) == 0 {
        params.repetition_penalty = pick(r, &[0.5, 1.0, 1.1, 2.0, 1e30]);
        params.presence_penalty = pick(r, &[0.0, 0.5, -2.0, 3e38]);
        params.frequency_penalty = pick(r, &[0.0, 0.1, -0.3, 3e38, -3e38]);
    }
    if r.below(4) == 0 {
        params.logit_bias = hostile_biases(r, vocab);
    }
    if r.below(5) == 0 {
        params.num_logprobs = Some(pick(r, &[0, 1, 5, 20, MOST_TOP_LOGPROBS]));
    }
    params
}

/// Every token at most once, some of them outside the vocabulary.
fn hostile_biases(r: &mut Random, vocab: usize) -> Vec<(u32, f32)> {
    let (first, step) = (r.below(vocab), 1 + r.below(vocab));
    let bias = |r: &mut Random| pick(r, &[0.0, 1e-3, 1.0, -1.0, 5.0, -100.0, 100.0, 3e38, -3e38]);
    (0..1 + r.below(20))
        .map(|i| ((first + i * step) as u32, bias(r)))
        .collect()
}

/// Allows nothing, one token, a few, most or all of them; every other time nothing is masked.
fn hostile_mask(r: &mut Random, vocab: usize) -> Option<TokenMask> {
    let mut mask = TokenMask::new(vocab);
    match r.below(10) {
        0..=4 => return None,
        5 => {}
        6 => mask.allow(r.below(vocab) as u32),
        7 => (0..10).for_each(|_| mask.allow(r.below(vocab) as u32)),
        8 => mask.copy_from(&vec![u32::MAX; TokenMask::num_words(vocab)]),
        _ => {
            let words: Vec<u32> = (0..TokenMask::num_words(vocab))
                .map(|_| r.next() as u32)
                .collect();
            mask.copy_from(&words);
        }
    }
    Some(mask)
}

fn tokens(r: &mut Random, vocab: usize) -> Vec<u32> {
    let near = 1 + r.below(vocab + 2);
    (0..r.below(40)).map(|_| r.below(near) as u32).collect()
}

/// Sequences of one vocabulary, on the card and as the specification has them.
struct Case<'a> {
    gpu: &'a Gpu,
    vocab: usize,
    sampler: Sampler,
    rows: SampleRows,
    expected: HostSampler,
    params: Vec<SamplingParams>,
}

impl<'a> Case<'a> {
    fn new(gpu: &'a Gpu, r: &mut Random) -> Result<Self, CudaError> {
        let vocab = match r.below(60) {
            0 => 128_256,
            1 => 32_000,
            _ => pick(r, &[1, 2, 15, 16, 17, 129, 1_000, 1_000, 4_099]),
        };
        let sequences = 1 + r.below(8);
        let shape = SamplerShape {
            sequences,
            vocab_size: vocab,
        };
        let mut case = Self {
            gpu,
            vocab,
            sampler: Sampler::new(gpu, shape)?,
            rows: SampleRows::new(gpu, sequences)?,
            expected: HostSampler::new(shape),
            params: vec![SamplingParams::GREEDY; sequences],
        };
        // Slot 0 now and then stays as it began.
        (r.below(4).min(1)..sequences).try_for_each(|slot| case.begin(r, slot))?;
        Ok(case)
    }

    fn begin(&mut self, r: &mut Random, slot: usize) -> Result<(), CudaError> {
        let params = hostile_params(r, self.vocab);
        let (prompt, generated) = (tokens(r, self.vocab), tokens(r, self.vocab));
        self.expected.begin(slot, &params, &prompt, &generated);
        self.sampler.begin(slot, &params, &prompt, &generated)?;
        self.params[slot] = params;
        Ok(())
    }

    /// Masks some sequences anew; the others keep the mask they had.
    fn mask(&mut self, r: &mut Random) -> Result<(), CudaError> {
        for slot in 0..self.params.len() {
            if r.below(2) == 0 {
                let mask = hostile_mask(r, self.vocab);
                self.expected.set_mask(slot, mask.as_ref());
                self.sampler.mask(slot, mask.as_ref())?;
            }
        }
        Ok(())
    }

    /// Samples some of the sequences, each from a row of its own; the number of rows that differ.
    fn step(
        &mut self,
        r: &mut Random,
        (kernel, last_tokens): (&Sampling, &LastTokens),
    ) -> Result<usize, CudaError> {
        self.mask(r)?;
        let sequences = self.params.len();
        let (first, count) = (r.below(sequences), r.below(sequences + 1));
        let row = |i| SampleRow {
            slot: (first + i) % sequences,
            position: r.next() as usize >> r.below(64),
        };
        let rows: Vec<SampleRow> = (0..count).map(row).collect();
        let logits: Vec<Vec<f32>> = rows.iter().map(|_| hostile_row(r, self.vocab)).collect();
        self.rows.upload(&rows)?;
        let buffer = self.gpu.upload(&logits.concat())?;
        kernel.launch(&mut self.sampler, &buffer, &self.rows)?;
        let (got, expected) = (self.sampler.read()?, self.samples(&rows, &logits));
        let mut failed = usize::from(got.len() != expected.len());
        for ((got, expected), row) in got.iter().zip(&expected).zip(&rows) {
            if !is_same(got, expected) {
                let params = SamplingParams {
                    logit_bias: Vec::new(),
                    ..self.params[row.slot].clone()
                };
                println!(
                    "FAILED: vocab {} {params:?} {row:?}, {:?} tokens allowed: {got:?}, expected {expected:?}",
                    self.vocab,
                    self.expected.mask(row.slot).map(TokenMask::num_allowed)
                );
                failed += 1;
            }
        }
        self.expected.keep(&rows, expected);
        let ids = self.gpu.filled(4 * rows.len(), 7)?;
        last_tokens.launch(&ids, &self.sampler, &self.rows)?;
        let mut got = vec![0u32; rows.len()];
        ids.read(0, &mut got)?;
        failed += usize::from(!self.expected.last_tokens(&rows).eq(got));
        Ok(failed)
    }

    fn samples(&self, rows: &[SampleRow], logits: &[Vec<f32>]) -> Vec<Sample> {
        let choose = |(row, logits): (&SampleRow, &Vec<f32>)| {
            let (params, counts) = self.expected.slot(row.slot);
            let mask = self.expected.mask(row.slot);
            naive::sample_masked(logits, params, counts, mask, row.position)
        };
        if self.vocab < LONG_ROW {
            return rows.iter().zip(logits).map(choose).collect();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = rows
                .iter()
                .zip(logits)
                .map(|row| scope.spawn(move || choose(row)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|sample| sample.expect("the specification does not panic"))
                .collect()
        })
    }
}

/// Equality of bits.
fn is_same(got: &Sample, expected: &Sample) -> bool {
    match (got, expected) {
        (Err(SampleError::Logit { token: a, got: x }), Err(SampleError::Logit { token: b, got: y })) => {
            a == b && x.to_bits() == y.to_bits()
        }
        (Ok(a), Ok(b)) => match (&a.logprobs, &b.logprobs) {
            (Some(x), Some(y)) => {
                let bits =
                    |top: &[(u32, f32)]| -> Vec<_> { top.iter().map(|t| (t.0, t.1.to_bits())).collect() };
                let same = x.chosen.to_bits() == y.chosen.to_bits() && bits(&x.top) == bits(&y.top);
                a.token == b.token && same
            }
            _ => a == b,
        },
        _ => got == expected,
    }
}

fn compare_all(jit: &Jit, gpu: &Gpu, count: usize) -> Result<usize, CudaError> {
    let (mut r, mut failed) = (Random(17), 0);
    let (kernel, last_tokens) = (Sampling::new(jit, gpu)?, LastTokens::new(jit, gpu)?);
    for _ in 0..count {
        let mut case = Case::new(gpu, &mut r)?;
        for _ in 0..3 {
            failed += case.step(&mut r, (&kernel, &last_tokens))?;
            // A slot is used again.
            let slot = r.below(case.params.len());
            case.begin(&mut r, slot)?;
        }
        if failed > 20 {
            break;
        }
    }
    Ok(failed)
}

fn compare_log_softmax(jit: &Jit, gpu: &Gpu, count: usize) -> Result<usize, CudaError> {
    let (mut r, mut failed, kernel) = (Random(18), 0, LogSoftmax::new(jit, gpu)?);
    for case in 0..count {
        let columns = match case % 20 {
            0 => 128_256,
            1 => 32_000,
            _ => pick(
                &mut r,
                &[
                    1, 2, 15, 16, 17, 31, 1_000, 3_839, 3_840, 3_841, 3_857, 7_680, 7_681, 11_521,
                ],
            ),
        };
        let rows = 1 + r.below(5);
        let mut expected: Vec<f32> = (0..rows).flat_map(|_| hostile_row(&mut r, columns)).collect();
        let x = gpu.upload(&expected)?;
        kernel.launch(&x, rows, columns)?;
        let mut got = vec![0.0f32; expected.len()];
        x.read(0, &mut got)?;
        expected.chunks_exact_mut(columns).for_each(naive::log_softmax);
        let differs = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
        if let Some(at) = got.iter().zip(&expected).position(|pair| differs(&pair)) {
            println!(
                "FAILED: log_softmax {rows}x{columns}: {} at {at}, expected {}",
                got[at], expected[at]
            );
            failed += 1;
        }
    }
    Ok(failed)
}

/// Logits as models give them; found in the second-level cache, where the product before left them, if they fit it.
fn logits_of(gpu: &Gpu, rows: usize, vocab: usize) -> Result<Vec<Buffer>, CudaError> {
    let mut r = Random(5);
    let pattern: Vec<f32> = (0..vocab + 77).map(|_| 3.0 * bell(&mut r)).collect();
    let copies = if rows <= 16 {
        1
    } else {
        rotation_copies(gpu, 4 * rows * vocab)
    };
    (0..copies)
        .map(|_| gpu.upload_repeated(&pattern, rows * vocab))
        .collect()
}

fn print_times(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let vocab = 128_256;
    let (sampling, log_softmax) = (Sampling::new(jit, gpu)?, LogSoftmax::new(jit, gpu)?);
    let drawn = SamplingParams {
        temperature: 1.0,
        ..SamplingParams::GREEDY
    };
    let nucleus = SamplingParams {
        top_p: 0.9,
        ..drawn.clone()
    };
    let kinds = [
        ("greedy", SamplingParams::GREEDY),
        (
            "greedy with penalties",
            SamplingParams {
                repetition_penalty: 1.1,
                ..SamplingParams::GREEDY
            },
        ),
        ("temperature", drawn.clone()),
        ("top-p 0.9", nucleus.clone()),
        (
            "top-k 50, top-p 0.9",
            SamplingParams {
                top_k: 50,
                ..nucleus.clone()
            },
        ),
        (
            "top-p 0.9 with 5 logprobs",
            SamplingParams {
                num_logprobs: Some(5),
                ..nucleus
            },
        ),
    ];
    for rows in [1, 16, 256] {
        let logits = logits_of(gpu, rows, vocab)?;
        let shape = SamplerShape {
            sequences: rows,
            vocab_size: vocab,
        };
        let mut sample_rows = SampleRows::new(gpu, rows)?;
        let row = |slot| SampleRow { slot, position: 7 };
        sample_rows.upload(&(0..rows).map(row).collect::<Vec<_>>())?;
        let sampler = RefCell::new(Sampler::new(gpu, shape)?);
        for (words, params) in &kinds {
            (0..rows).try_for_each(|slot| sampler.borrow_mut().begin(slot, params, &[1, 2, 3], &[]))?;
            let times = times_s(gpu, 3, logits.len(), |i| {
                sampling.launch(&mut sampler.borrow_mut(), &logits[i], &sample_rows)
            })?;
            println!("{words}, {rows} rows: {:.1} us", times[1] * 1e6);
        }
        // The last kind once more, under a mask of every third token.
        let mut mask = TokenMask::new(vocab);
        (0..vocab as u32).step_by(3).for_each(|token| mask.allow(token));
        (0..rows).try_for_each(|slot| sampler.borrow_mut().mask(slot, Some(&mask)))?;
        let times = times_s(gpu, 3, logits.len(), |i| {
            sampling.launch(&mut sampler.borrow_mut(), &logits[i], &sample_rows)
        })?;
        println!("the same under a mask, {rows} rows: {:.1} us", times[1] * 1e6);
        let times = times_s(gpu, 3, logits.len(), |i| {
            log_softmax.launch(&logits[i], rows, vocab)
        })?;
        println!("log_softmax, {rows} rows: {:.1} us", times[1] * 1e6);
    }
    Ok(())
}
