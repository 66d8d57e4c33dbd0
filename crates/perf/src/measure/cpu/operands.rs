//! The operands of CPU products. They are drawn at random, and the same on every machine.

use dualgrain_cpu::{CpuDevice, Linear, Matrix, Quantized};
use dualgrain_device::{Device, DeviceError, naive};
use dualgrain_format::{
    FloatLinear, FloatValues, GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts,
};
use half::bf16;

use super::op::{ProductType, ROTATION_BYTES};
use crate::error::PerfError;
use crate::trees::Random;

/// Small weights rotate through as many copies as a model of 32 blocks has, which may stay in a cache there too.
const MOST_COPIES: usize = 128;
/// Up to so many multiply-adds a product is compared with the specification as well.
const NAIVE_WORK: usize = 256 * 256 * 256;

pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
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
pub(crate) enum DrawnWeights {
    Integer { w8: Vec<i8>, s1: Vec<f32> },
    Float(FloatLinear),
}

fn w4_weights(
    (n, k): (usize, usize),
    group_size: GroupSize,
) -> Result<(LinearWeights, DrawnWeights), PerfError> {
    let layer = w4((n, k), group_size)?;
    let mut w8 = vec![0; n * k];
    for (row, w8) in w8.chunks_exact_mut(k).enumerate() {
        layer.w8_row(row, w8);
    }
    let s1 = layer.s1().to_vec();
    Ok((LinearWeights::W4(layer), DrawnWeights::Integer { w8, s1 }))
}

fn w8_weights(
    (n, k): (usize, usize),
    code: &mut impl FnMut() -> i8,
) -> Result<(LinearWeights, DrawnWeights), PerfError> {
    let w8: Vec<i8> = (0..n * k).map(|_| code()).collect();
    let s1: Vec<f32> = (0..n).map(|row| 1e-3 + row as f32 * 1e-7).collect();
    let layer = Int8Linear::new((n, k), w8.clone(), s1.clone(), None, None);
    let layer = layer.map_err(|error| PerfError::operands(&error))?;
    Ok((LinearWeights::W8(layer), DrawnWeights::Integer { w8, s1 }))
}

fn float_weights(
    (n, k): (usize, usize),
    op: ProductType,
) -> Result<(LinearWeights, DrawnWeights), PerfError> {
    let values = floats(n * k, 7);
    let values = match op {
        ProductType::F32 => FloatValues::F32(values),
        _ => FloatValues::Bf16(values.into_iter().map(bf16::from_f32).collect()),
    };
    let layer = FloatLinear::new(n, k, values, None).map_err(|error| PerfError::operands(&error))?;
    Ok((LinearWeights::Float(layer.clone()), DrawnWeights::Float(layer)))
}

/// One type's operands of a shape, with what is known of their product.
pub(crate) struct DrawnOperands {
    pub(crate) op: ProductType,
    pub(crate) shape: (usize, usize, usize),
    weights: LinearWeights,
    pub(crate) drawn: DrawnWeights,
    pub(crate) codes: Vec<i8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) a: Vec<f32>,
    pub(crate) naive_sums: Option<Vec<i32>>,
    pub(crate) naive_floats: Option<Vec<f32>>,
}

impl DrawnOperands {
    pub fn new(
        op: ProductType,
        (m, n, k): (usize, usize, usize),
        group_size: GroupSize,
    ) -> Result<Self, PerfError> {
        let mut next = random(5);
        let mut code = || ((next() % 255) as i32 - 127) as i8;
        let (weights, drawn) = match op {
            ProductType::W4a8 => w4_weights((n, k), group_size)?,
            ProductType::W8a8 => w8_weights((n, k), &mut code)?,
            ProductType::F32 | ProductType::Bf16 => float_weights((n, k), op)?,
        };
        let num_codes = if op.is_integer() { m * k } else { 0 };
        let num_floats = if op.is_integer() { 0 } else { m * k };
        let mut operands = Self {
            op,
            shape: (m, n, k),
            weights,
            drawn,
            codes: (0..num_codes).map(|_| code()).collect(),
            scales: (0..m).map(|row| 1e-3 + row as f32 * 1e-6).collect(),
            a: floats(num_floats, 9),
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
            DrawnWeights::Integer { w8, .. } => {
                let dot = |a: &[i8], w: &[i8]| -> i32 {
                    a.iter().zip(w).map(|(&a, &w)| i32::from(a) * i32::from(w)).sum()
                };
                let rows = self.codes.chunks_exact(k);
                let sums = rows.flat_map(|a| w8.chunks_exact(k).map(move |w| dot(a, w)));
                self.naive_sums = Some(sums.collect());
            }
            DrawnWeights::Float(layer) => {
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
    ///
    /// # Errors
    /// The device failed.
    pub fn upload(&self, device: &CpuDevice) -> Result<(Quantized, Matrix), DeviceError> {
        let (m, _, k) = self.shape;
        let (mut a, mut x) = (device.quantized(m, k)?, device.matrix(m, k)?);
        if self.op.is_integer() {
            device.upload_int8(&mut a, &self.codes, &self.scales);
        } else {
            device.upload(&mut x, &self.a)?;
        }
        Ok((a, x))
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
        for op in ProductType::ALL {
            // Small and not: one passes the specification as well.
            for shape in [(5, 70, 257), (130, 400, 513)] {
                let operands = DrawnOperands::new(op, shape, GroupSize::Along(128)).unwrap();
                let (a, x) = operands.upload(&device).unwrap();
                let linear = operands.pack(&device).unwrap();
                assert!(
                    operands.is_right(&device, &linear, (&a, &x)).unwrap(),
                    "{op:?} {shape:?}"
                );
                let mut other = DrawnOperands::new(op, shape, GroupSize::Along(128)).unwrap();
                let (_, n, k) = shape;
                // One weight of the last row is another one.
                match &mut other.drawn {
                    DrawnWeights::Integer { w8, .. } => w8[n * k - 1] = w8[n * k - 1].wrapping_add(1),
                    DrawnWeights::Float(layer) => {
                        let mut values: Vec<f32> = (0..n * k).map(|i| layer.weight().at(i)).collect();
                        values[n * k - 1] += 1.0;
                        *layer = FloatLinear::new(n, k, FloatValues::F32(values), None).unwrap();
                    }
                }
                other.multiply_naively();
                assert!(
                    !other.is_right(&device, &linear, (&a, &x)).unwrap(),
                    "{op:?} {shape:?}"
                );
            }
        }
    }
}
