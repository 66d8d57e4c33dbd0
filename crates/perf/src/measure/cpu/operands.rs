//! Operands of CPU products, their check, and the clock.

use std::hint::black_box;
use std::time::Instant;

use dualgrain_cpu::{CpuDevice, Linear, Matrix, Quantized};
use dualgrain_device::{Device, Operand, naive};
use dualgrain_format::{
    FloatLinear, FloatValues, GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts,
};
use half::bf16;

use super::rapl::Rapl;
use crate::data::{Mark, Row};
use crate::error::PerfError;
use crate::measure::sweep::set_times;
use crate::trees::Random;

/// Copies of the weights pass this size together, so that they come from memory as a model's do: on a Xeon whose cores share
/// 480 MB one thread reads 30 GB/s out of 64 MB, 20 out of 128 and 16 out of 256 MB or more.
const ROTATION_BYTES: usize = 320 << 20;
/// Small weights rotate through as many copies as a model of 32 blocks has, which may stay in a cache there too.
const MOST_COPIES: usize = 128;
/// A repetition takes at least so long, and there are so many.
const REPEAT_S: f64 = 2.5e-3;
const REPEATS: usize = 5;
/// Measured again at most so often when repetitions lie far apart: other programs come and go.
const TRIES: usize = 3;
/// An energy region.
const ENERGY_S: f64 = 0.3;
/// Up to so many multiply-adds a product is compared with the specification as well.
const NAIVE_WORK: usize = 256 * 256 * 256;

/// Types of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuOp {
    W4a8,
    W8a8,
    F32,
    Bf16,
}

impl CpuOp {
    pub const ALL: [Self; 4] = [Self::W4a8, Self::W8a8, Self::F32, Self::Bf16];

    pub fn name(self) -> &'static str {
        match self {
            Self::W4a8 => "gemm_w4a8",
            Self::W8a8 => "gemm_w8a8",
            Self::F32 => "gemm_f32",
            Self::Bf16 => "gemm_bf16",
        }
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Self::W4a8 | Self::W8a8)
    }

    /// Memory that operands with their copies and outputs take together, at most.
    pub fn bytes(self, (m, n, k): (usize, usize, usize)) -> f64 {
        let (m, n, k) = (m as f64, n as f64, k as f64);
        let element = if self.is_integer() { 1.0 } else { 4.0 };
        // Drawn, in a layer, a copy of that, packed twice; small ones are packed oftener.
        let weights = 5.0 * element * n * k + ROTATION_BYTES as f64;
        // Codes and floats, here and on the device.
        let tokens = 2.0 * (1.0 + 4.0) * m * k;
        // On the device, read back, sums, those of the plain loop.
        let outputs = 4.0 * 4.0 * m * n;
        weights + tokens + outputs
    }
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut random = Random::new(seed, 0);
    move || random.next()
}

/// Floats of mean 0 and variance 1, nearly normal.
pub(crate) fn floats(len: usize, seed: u64) -> Vec<f32> {
    let mut next = random(seed);
    let uniform = |bits: u64| (bits & 0xffff) as f32 / 32_768.0 - 1.0;
    let mut normal = || {
        let bits = next();
        uniform(bits) + uniform(bits >> 16) + uniform(bits >> 32)
    };
    (0..len).map(|_| normal()).collect()
}

/// A layer whose every nibble keeps the int8 guard: group scales 4..14, zero points 6..9.
fn w4((n, k): (usize, usize), size: GroupSize) -> Result<QuantizedLinear, PerfError> {
    let (mut next, groups) = (random(3), size.num_groups(k));
    let (mut q, mut zero, mut s2) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        let zeros: Vec<u8> = (0..groups).map(|_| 6 + (next() % 4) as u8).collect();
        let mut codes: Vec<u8> = (0..k.div_ceil(8))
            .flat_map(|_| {
                let bits = next();
                (0..8).map(move |i| (bits >> (8 * i)) as u8 & 15)
            })
            .collect();
        codes.truncate(k);
        dualgrain_format::int4::pack_row(&codes, zeros.last().copied().unwrap_or(0), &mut q);
        dualgrain_format::int4::pack_row(&zeros, 0, &mut zero);
        s2.extend((0..groups).map(|_| 4 + (next() % 11) as u8));
    }
    let s1 = (0..n).map(|_| 1e-4 + (next() & 0xffff) as f32 * 1e-7).collect();
    let parts = QuantizedParts {
        q,
        zero,
        s2,
        s1,
        bias: None,
        ta: None,
    };
    QuantizedLinear::new((n, k), size, parts).map_err(|error| PerfError::operands(&error))
}

/// One type's weights of a shape, as they were drawn.
enum Drawn {
    Integer { w8: Vec<i8>, s1: Vec<f32> },
    Float(FloatLinear),
}

/// One type's operands of a shape, with what is known of their product.
pub(crate) struct CpuOperands {
    op: CpuOp,
    shape: (usize, usize, usize),
    weights: LinearWeights,
    drawn: Drawn,
    codes: Vec<i8>,
    scales: Vec<f32>,
    a: Vec<f32>,
    naive_sums: Option<Vec<i32>>,
    naive_floats: Option<Vec<f32>>,
}

impl CpuOperands {
    pub fn new(
        op: CpuOp,
        (m, n, k): (usize, usize, usize),
        group_size: GroupSize,
    ) -> Result<Self, PerfError> {
        let mut next = random(5);
        let mut code = || ((next() % 255) as i32 - 127) as i8;
        let (weights, drawn) = match op {
            CpuOp::W4a8 => {
                let layer = w4((n, k), group_size)?;
                let mut w8 = vec![0; n * k];
                for (row, w8) in w8.chunks_exact_mut(k).enumerate() {
                    layer.w8_row(row, w8);
                }
                let s1 = layer.s1().to_vec();
                (LinearWeights::W4(layer), Drawn::Integer { w8, s1 })
            }
            CpuOp::W8a8 => {
                let w8: Vec<i8> = (0..n * k).map(|_| code()).collect();
                let s1: Vec<f32> = (0..n).map(|row| 1e-3 + row as f32 * 1e-7).collect();
                let layer = Int8Linear::new((n, k), w8.clone(), s1.clone(), None, None)
                    .map_err(|error| PerfError::operands(&error))?;
                (LinearWeights::W8(layer), Drawn::Integer { w8, s1 })
            }
            CpuOp::F32 | CpuOp::Bf16 => {
                let values = floats(n * k, 7);
                let values = match op {
                    CpuOp::F32 => FloatValues::F32(values),
                    _ => FloatValues::Bf16(values.into_iter().map(bf16::from_f32).collect()),
                };
                let layer =
                    FloatLinear::new(n, k, values, None).map_err(|error| PerfError::operands(&error))?;
                (LinearWeights::Float(layer.clone()), Drawn::Float(layer))
            }
        };
        let codes: Vec<i8> = if op.is_integer() {
            (0..m * k).map(|_| code()).collect()
        } else {
            Vec::new()
        };
        let scales = (0..m).map(|row| 1e-3 + row as f32 * 1e-6).collect();
        let a = if op.is_integer() {
            Vec::new()
        } else {
            floats(m * k, 9)
        };
        let mut operands = Self {
            op,
            shape: (m, n, k),
            weights,
            drawn,
            codes,
            scales,
            a,
            naive_sums: None,
            naive_floats: None,
        };
        operands.multiply_naively();
        Ok(operands)
    }

    fn is_small(&self) -> bool {
        let (m, n, k) = self.shape;
        m * n * k <= NAIVE_WORK
    }

    /// What checked the products.
    pub fn verified_by(&self) -> String {
        let word = if self.is_small() { "naive" } else { "freivalds" };
        word.to_owned()
    }

    fn multiply_naively(&mut self) {
        let (m, n, k) = self.shape;
        if !self.is_small() {
            return;
        }
        match &self.drawn {
            Drawn::Integer { w8, .. } => {
                let dot = |a: &[i8], w: &[i8]| -> i32 {
                    a.iter().zip(w).map(|(&a, &w)| i32::from(a) * i32::from(w)).sum()
                };
                let rows = self.codes.chunks_exact(k);
                let sums = rows.flat_map(|a| w8.chunks_exact(k).map(move |w| dot(a, w)));
                self.naive_sums = Some(sums.collect());
            }
            Drawn::Float(layer) => {
                let mut d = vec![0.0; m * n];
                naive::gemm_float(&self.a, layer, &mut d);
                self.naive_floats = Some(d);
            }
        }
    }

    /// The weights as a device reads them.
    pub fn pack(&self, device: &CpuDevice) -> Result<Linear, PerfError> {
        Ok(device.pack(self.weights.clone())?)
    }

    /// As many of them as caches do not hold.
    pub fn pack_copies(&self, device: &CpuDevice) -> Result<Vec<Linear>, PerfError> {
        let first = self.pack(device)?;
        let size_bytes = device.linear_bytes(&first).max(1);
        let copies = ROTATION_BYTES.div_ceil(size_bytes).clamp(2, MOST_COPIES);
        let more = (1..copies).map(|_| self.pack(device));
        std::iter::once(Ok(first)).chain(more).collect()
    }

    /// Activations on a device.
    pub fn upload(&self, device: &CpuDevice) -> (Quantized, Matrix) {
        let (m, _, k) = self.shape;
        let (mut a, mut x) = (device.quantized(m, k), device.matrix(m, k));
        if self.op.is_integer() {
            device.upload_int8(&mut a, &self.codes, &self.scales);
        } else {
            device.upload(&mut x, &self.a);
        }
        (a, x)
    }

    /// Whether a device multiplies them rightly: integer sums by Freivalds' check modulo 2^32 and outputs bit by bit from
    /// those, floats by signs in double precision; small products against the specification.
    pub fn is_right(&self, device: &CpuDevice, linear: &Linear, (a, x): (&Quantized, &Matrix)) -> bool {
        let (m, n, _) = self.shape;
        let mut out = device.matrix(m, n);
        let mut d = vec![f32::NAN; m * n];
        match &self.drawn {
            Drawn::Integer { w8, s1 } => {
                device.gemm(&mut out, Operand::Int8(a), linear);
                device.download(&out, 0..m, &mut d);
                let sums = device.gemm_acc(a, linear);
                let outputs_follow = d.iter().zip(&sums).enumerate().all(|(place, (d, &sum))| {
                    let expected = naive::epilogue(sum, self.scales[place / n], s1[place % n], None);
                    d.to_bits() == expected.to_bits()
                });
                outputs_follow
                    && self.sums_are_right(w8, &sums)
                    && self.naive_sums.as_ref().is_none_or(|naive| *naive == sums)
            }
            Drawn::Float(layer) => {
                device.gemm(&mut out, Operand::Float(x), linear);
                device.download(&out, 0..m, &mut d);
                self.floats_are_right(layer, &d) && self.naive_floats.as_ref().is_none_or(|naive| *naive == d)
            }
        }
    }

    fn sums_are_right(&self, w8: &[i8], sums: &[i32]) -> bool {
        let (_, n, k) = self.shape;
        let mut next = random(11);
        let r: Vec<u32> = (0..n).map(|_| next() as u32).collect();
        let mut inner = vec![0u32; k];
        for (w, &r) in w8.chunks_exact(k).zip(&r) {
            for (inner, &w) in inner.iter_mut().zip(w) {
                *inner = inner.wrapping_add(r.wrapping_mul(i32::from(w) as u32));
            }
        }
        let dot = |values: &mut dyn Iterator<Item = (u32, u32)>| {
            values.fold(0u32, |sum, (x, y)| sum.wrapping_add(x.wrapping_mul(y)))
        };
        let rows = self.codes.chunks_exact(k).zip(sums.chunks_exact(n));
        rows.into_iter().all(|(a, sums)| {
            let expected = dot(&mut a.iter().map(|&a| i32::from(a) as u32).zip(inner.iter().copied()));
            expected == dot(&mut sums.iter().map(|&sum| sum as u32).zip(r.iter().copied()))
        })
    }

    /// The bound of `freivalds` on the card: Hoeffding over signs, Higham and Mary for a sum of K products of variance 1.
    fn floats_are_right(&self, layer: &FloatLinear, d: &[f32]) -> bool {
        let (_, n, k) = self.shape;
        let mut next = random(13);
        let r: Vec<f64> = (0..n).map(|_| if next() & 1 == 0 { 1.0 } else { -1.0 }).collect();
        let mut inner = vec![0.0f64; k];
        for (row, r) in r.iter().enumerate() {
            for (column, inner) in inner.iter_mut().enumerate() {
                *inner += r * f64::from(layer.weight().at(row * k + column));
            }
        }
        let of_sum = 4.0 * 2f64.powi(-24) * (k as f64).sqrt() * k as f64;
        let allowed = 8.0 * of_sum * (n as f64).sqrt();
        let rows = self.a.chunks_exact(k).zip(d.chunks_exact(n));
        rows.into_iter().all(|(a, d)| {
            let expected: f64 = a.iter().zip(&inner).map(|(&a, y)| f64::from(a) * y).sum();
            let got: f64 = d.iter().zip(&r).map(|(&d, r)| f64::from(d) * r).sum();
            (got - expected).abs() <= allowed
        })
    }

    /// Fills in time, and energy where the machine shows it.
    pub fn measure(
        &self,
        row: &mut Row,
        device: &CpuDevice,
        linears: &[Linear],
        (a, x): (&Quantized, &Matrix),
        rapl: Option<&Rapl>,
    ) {
        let (m, n, _) = self.shape;
        let mut out = device.matrix(m, n);
        let mut turn = 0;
        let mut run = |count: usize| {
            let start = Instant::now();
            for _ in 0..count {
                turn = (turn + 1) % linears.len();
                let operand = match self.op.is_integer() {
                    true => Operand::Int8(a),
                    false => Operand::Float(x),
                };
                device.gemm(&mut out, operand, &linears[turn]);
                black_box(&out);
            }
            start.elapsed().as_secs_f64() / count as f64
        };
        let one_s = run(1).min(run(1)).max(1e-7);
        let count = ((REPEAT_S / one_s) as usize).clamp(1, 10_000);
        run(count);
        for _ in 0..TRIES {
            row.mark = None;
            set_times(row, (0..REPEATS).map(|_| run(count)).collect());
            if row.mark != Some(Mark::Unsteady) {
                break;
            }
        }
        let Some((rapl, earlier)) = rapl.and_then(|rapl| rapl.read().map(|reading| (rapl, reading))) else {
            return;
        };
        let (start, mut runs) = (Instant::now(), 0);
        while start.elapsed().as_secs_f64() < ENERGY_S {
            run(count);
            runs += count;
        }
        let window_s = start.elapsed().as_secs_f64();
        if let Some(energy_j) = rapl.since_j(&earlier) {
            row.power_w = Some(energy_j / window_s);
            row.energy_j = Some(energy_j / runs as f64);
            row.energy_window_s = Some(window_s);
            row.energy_runs = runs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualgrain_cpu::{Isa, available};

    fn fastest() -> CpuDevice {
        let isa = available().into_iter().next_back().unwrap_or(Isa::Portable);
        CpuDevice::with_isa(2, isa).unwrap()
    }

    #[test]
    fn right_products_pass_and_a_product_of_other_weights_does_not() {
        let device = fastest();
        for op in CpuOp::ALL {
            // Small and not: one passes the specification as well.
            for shape in [(5, 70, 257), (130, 400, 513)] {
                let operands = CpuOperands::new(op, shape, GroupSize::Along(128)).unwrap();
                let (a, x) = operands.upload(&device);
                let linear = operands.pack(&device).unwrap();
                assert!(operands.is_right(&device, &linear, (&a, &x)), "{op:?} {shape:?}");
                let mut other = CpuOperands::new(op, shape, GroupSize::Along(128)).unwrap();
                let (_, n, k) = shape;
                // One weight of the last row is another one.
                match &mut other.drawn {
                    Drawn::Integer { w8, .. } => w8[n * k - 1] = w8[n * k - 1].wrapping_add(1),
                    Drawn::Float(layer) => {
                        let mut values: Vec<f32> = (0..n * k).map(|i| layer.weight().at(i)).collect();
                        values[n * k - 1] += 1.0;
                        *layer = FloatLinear::new(n, k, FloatValues::F32(values), None).unwrap();
                    }
                }
                other.multiply_naively();
                assert!(!other.is_right(&device, &linear, (&a, &x)), "{op:?} {shape:?}");
            }
        }
    }
}
