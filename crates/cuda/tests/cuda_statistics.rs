//! What calibration measures on a card, against the specification, bit for bit.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. `--cases N` (default 100);
//! `--times` prints times afterwards.

mod card;

use std::cell::RefCell;
use std::process::ExitCode;

use dualgrain_cuda::{
    AbsMax, ComputeOutputErrors, CudaError, Gpu, GramMatrix, GramUpdate, Jit, Maxima, OutputErrors, times_s,
};
use dualgrain_device::cases::Random;
use dualgrain_device::naive;

fn main() -> ExitCode {
    card::compare(
        "statistics",
        100,
        |jit, gpu, count| Kernels::new(jit, gpu)?.compare_all(gpu, count),
        |jit, gpu| Kernels::new(jit, gpu)?.print_times(gpu),
    )
}

struct Kernels {
    gram: GramUpdate,
    errors: ComputeOutputErrors,
    abs_max: AbsMax,
}

/// Numbers of common, tiny and huge sizes; now and then one that is no number.
fn hostile(r: &mut Random, len: usize) -> Vec<f32> {
    let size = [1e-30, 1.0, 1.0, 100.0, 1e15][r.below(5)];
    let mut values: Vec<f32> = (0..len).map(|_| r.float() * size).collect();
    if r.below(6) == 0 {
        let at = r.below(len);
        values[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0][r.below(4)];
    }
    values
}

/// Bits, where all that is no number is one.
fn bits(values: &[f32]) -> Vec<u32> {
    let bits = |v: &f32| if v.is_nan() { u32::MAX } else { v.to_bits() };
    values.iter().map(bits).collect()
}

impl Kernels {
    fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            gram: GramUpdate::new(jit, gpu)?,
            errors: ComputeOutputErrors::new(jit, gpu)?,
            abs_max: AbsMax::new(jit, gpu)?,
        })
    }

    fn compare_all(&self, gpu: &Gpu, count: usize) -> Result<usize, CudaError> {
        let (mut r, mut failed) = (Random(19), 0);
        for _ in 0..count {
            let k = [1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 320][r.below(14)];
            let parts = [
                ("gram", self.gram_differs(gpu, &mut r, k)?),
                ("output errors", self.errors_differ(gpu, &mut r, k)?),
                ("maxima", self.maxima_differ(gpu, &mut r, k)?),
            ];
            for (what, _) in parts.iter().filter(|(_, differs)| *differs) {
                println!("FAILED: {what} of {k} columns");
                failed += 1;
            }
        }
        Ok(failed)
    }

    fn gram_differs(&self, gpu: &Gpu, r: &mut Random, k: usize) -> Result<bool, CudaError> {
        let (mut gram, mut expected) = (GramMatrix::new(gpu, k)?, vec![0.0; k * k]);
        let mut num_tokens = 0;
        for _ in 0..2 {
            let tokens = [0, 1, 2, 15, 16, 17, 255, 256, 257, 300, 513][r.below(11)];
            let x = if tokens == 0 {
                Vec::new()
            } else {
                hostile(r, tokens * k)
            };
            self.gram.launch(&mut gram, &gpu.upload(&x)?, tokens)?;
            naive::gram_accumulate(&mut expected, &x, k);
            num_tokens += tokens;
        }
        let got = gram.to_host()?;
        Ok(got.num_tokens() != num_tokens || bits(got.values()) != bits(&expected))
    }

    fn errors_differ(&self, gpu: &Gpu, r: &mut Random, k: usize) -> Result<bool, CudaError> {
        let mut gram = dualgrain_device::Gram::new(k);
        gram.values_mut().copy_from_slice(&hostile(r, k * k));
        let view = GramMatrix::of_host(gpu, &gram)?;
        let mut out = OutputErrors::new(gpu, 130)?;
        let mut differs = false;
        for _ in 0..2 {
            let rows = [1, 2, 7, 8, 9, 63, 64, 65, 130][r.below(9)];
            let errors = hostile(r, rows * k);
            self.errors.launch(&mut out, &view, &errors)?;
            let mut got = vec![0.0; rows];
            out.read(&mut got)?;
            let expected = errors
                .chunks_exact(k)
                .map(|e| naive::quadratic_row(gram.values(), e));
            let same = |(a, b): (&f64, f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            differs |= !got.iter().zip(expected).all(same);
        }
        Ok(differs)
    }

    fn maxima_differ(&self, gpu: &Gpu, r: &mut Random, stride: usize) -> Result<bool, CudaError> {
        let start = r.below(stride);
        let columns = start..start + 1 + r.below(stride - start);
        let (mut maxima, mut expected) = (Maxima::new(gpu, columns.len())?, vec![0.0; columns.len()]);
        for _ in 0..2 {
            let rows = [1, 2, 63, 64, 65, 300][r.below(6)];
            let x = hostile(r, rows * stride);
            self.abs_max
                .launch(&gpu.upload(&x)?, (rows, stride), columns.clone(), &mut maxima)?;
            let rows = x.chunks_exact(stride);
            rows.for_each(|row| naive::abs_max(&row[columns.clone()], &mut expected));
        }
        Ok(bits(&maxima.read()?) != bits(&expected))
    }

    fn print_times(&self, gpu: &Gpu) -> Result<(), CudaError> {
        let (k, tokens) = (4_096, 2_048);
        let pattern = Random(3).floats(1 << 16);
        let x = gpu.upload_repeated(&pattern, tokens * k)?;
        let gram = RefCell::new(GramMatrix::new(gpu, k)?);
        let times = times_s(gpu, 3, 1, |_| {
            self.gram.launch(&mut gram.borrow_mut(), &x, tokens)
        })?;
        let rate = (k * k * tokens) as f64 / times[1] / 1e12;
        println!(
            "gram k = {k}, {tokens} tokens: {:.0} us, {rate:.1} TFLOP/s of the lower triangle",
            times[1] * 1e6
        );
        let maxima = RefCell::new(Maxima::new(gpu, k)?);
        let times = times_s(gpu, 3, 1, |_| {
            self.abs_max
                .launch(&x, (tokens, k), 0..k, &mut maxima.borrow_mut())
        })?;
        println!("abs_max of {tokens} x {k}: {:.1} us", times[1] * 1e6);
        self.time_errors(gpu, k)
    }

    /// With the copy of the errors from the host.
    fn time_errors(&self, gpu: &Gpu, k: usize) -> Result<(), CudaError> {
        let (rows, view) = (1_024, GramMatrix::new(gpu, k)?);
        let (mut out, errors) = (OutputErrors::new(gpu, rows)?, Random(4).floats(rows * k));
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let started = std::time::Instant::now();
            self.errors.launch(&mut out, &view, &errors)?;
            gpu.synchronize()?;
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!("output errors of {rows} x {k}: {:.0} us", best * 1e6);
        Ok(())
    }
}
