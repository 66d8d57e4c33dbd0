//! Operands of `bench gemm`: random layers large enough for any cache, and the specification's word on some outputs.

use anyhow::{Result, ensure};
use dualgrain_cuda::{
    BLOCK_N, Buffer, CudaError, Gemm, GemmProblem, Gpu, Output, PackedLinear, QuantizedTokens,
    float_scales_cut, rotation_copies,
};
use dualgrain_device::naive;
use dualgrain_format::{GemmShape, GroupSize, QuantizedLinear, QuantizedParts, int4};
use half::{bf16, f16};

/// Rows that differ; a larger layer repeats them.
const OWN_ROWS: usize = 1_024;
/// Tokens that differ.
const OWN_TOKENS: usize = 512;
/// Tokens and features that are compared with the specification.
const CHECKED_TOKENS: usize = 48;
const CHECKED_FEATURES: usize = 64;

/// Numbers that look random, the same every run.
pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// bf16 numbers around 0, nearly normal.
pub fn random_bf16(len: usize) -> Vec<u16> {
    let mut next = random(len as u64);
    let uniform = |bits: u64| (bits & 0xfff) as f32 / 2048.0 - 1.0;
    let mut normal = || {
        let bits = next();
        bf16::from_f32(uniform(bits) + uniform(bits >> 12) + uniform(bits >> 24)).to_bits()
    };
    (0..len).map(|_| normal()).collect()
}

/// A group size from the command line.
pub fn group_size(size: &str) -> Result<GroupSize> {
    Ok(match size {
        "channel" => GroupSize::WholeRow,
        number => GroupSize::new(number.parse()?)?,
    })
}

/// Weights of one shape in copies that pass the caches.
pub struct Operands {
    layer: QuantizedLinear,
    n: usize,
    copies: Vec<PackedLinear>,
}

/// Activations on both sides.
pub struct Tokens {
    codes: Vec<i8>,
    scales: Vec<f32>,
    /// On the card.
    pub device: QuantizedTokens,
}

impl Operands {
    /// Random weights.
    pub fn new(device: &Gpu, (n, k): (usize, usize), size: &str) -> Result<Self> {
        let rows = n.min(OWN_ROWS).next_multiple_of(BLOCK_N);
        let layer = random_layer((rows, k), group_size(size)?)?;
        let mut copies = vec![PackedLinear::repeated(device, &layer, n)?];
        for _ in 1..rotation_copies(device, copies[0].image_bytes()) {
            copies.push(copies[0].copy(device)?);
        }
        Ok(Self { layer, n, copies })
    }

    /// N and K.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.layer.k())
    }

    /// How many copies there are.
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Copy `i` of the weights.
    pub fn weights(&self, i: usize) -> &PackedLinear {
        &self.copies[i]
    }

    /// Random activations: codes over the whole range, so that products draw the power they can.
    pub fn tokens(&self, device: &Gpu, m: usize) -> Result<Tokens> {
        let k = self.layer.k();
        let mut next = random(m as u64 + 77);
        let own = m.min(OWN_TOKENS) * k;
        let own: Vec<i8> = (0..own).map(|_| ((next() % 255) as i32 - 127) as i8).collect();
        let codes = own.repeat(m.div_ceil(OWN_TOKENS))[..m * k].to_vec();
        let scales: Vec<f32> = (0..m).map(|_| 1e-4 + (next() & 0xffff) as f32 * 1e-6).collect();
        let device = QuantizedTokens::upload(device, &codes, &scales, k)?;
        Ok(Tokens {
            codes,
            scales,
            device,
        })
    }

    /// Room for a product's outputs.
    pub fn output(&self, device: &Gpu, problem: &GemmProblem) -> Result<Buffer, CudaError> {
        let elements = problem.shape.m * problem.shape.n;
        device.filled(elements * problem.output.size_bytes(), 0xff)
    }

    /// The weights as bf16.
    pub fn bf16(&self, device: &Gpu) -> Result<Buffer, CudaError> {
        let (n, k) = self.shape();
        device.upload_repeated(&random_bf16(self.layer.n().min(n) * k), n * k)
    }

    /// The weights as the int8 numbers they stand for.
    pub fn w8(&self, device: &Gpu) -> Result<Buffer, CudaError> {
        let (n, k) = self.shape();
        let mut w8 = vec![0i8; self.layer.n() * k];
        for (row, w8) in w8.chunks_exact_mut(k).enumerate() {
            self.layer.w8_row(row, w8);
        }
        device.upload_repeated(&w8, n * k)
    }

    /// Runs a product once and compares some of its outputs, spread over all tiles, with the specification.
    pub fn check(&self, device: &Gpu, gemm: &Gemm, tokens: &Tokens) -> Result<()> {
        let problem = gemm.problem();
        let (m, n, size) = (problem.shape.m, self.n, problem.output.size_bytes());
        let d = self.output(device, problem)?;
        gemm.launch(self.weights(0), &tokens.device, &d)?;
        let features = spread(n, CHECKED_FEATURES);
        let weights: Vec<Vec<i8>> = features.iter().map(|&feature| self.w8_row(feature)).collect();
        let mut row = vec![0u8; n * size];
        for token in spread(m, CHECKED_TOKENS) {
            d.read(token * n * size, &mut row)?;
            for (&feature, w8) in features.iter().zip(&weights) {
                let expected = self.expected(problem.output, tokens, token, feature, w8);
                let got = &row[feature * size..(feature + 1) * size];
                ensure!(
                    got == expected,
                    "{} {} on {}: token {token}, feature {feature} is {got:02x?}, the specification says {expected:02x?}",
                    gemm.config().variant.kernel(),
                    gemm.config(),
                    problem.shape
                );
            }
        }
        Ok(())
    }

    fn w8_row(&self, feature: usize) -> Vec<i8> {
        let mut w8 = vec![0; self.layer.k()];
        self.layer.w8_row(feature % self.layer.n(), &mut w8);
        w8
    }

    /// Bytes of one output.
    fn expected(&self, output: Output, tokens: &Tokens, token: usize, feature: usize, w8: &[i8]) -> Vec<u8> {
        let codes = &tokens.codes[token * w8.len()..(token + 1) * w8.len()];
        let products = codes.iter().zip(w8).map(|(&a, &w)| i32::from(a) * i32::from(w));
        let acc: i32 = products.sum();
        let row = feature % self.layer.n();
        let bias = self.layer.bias().map(|bias| bias[row]);
        let d = naive::epilogue(acc, tokens.scales[token], self.layer.s1()[row], bias);
        match output {
            Output::Sums => acc.to_le_bytes().to_vec(),
            output => bytes_of(output, d),
        }
    }
}

/// The codes of [`Operands`] with float group scales, in copies that pass the caches.
pub struct FloatWeights {
    checked: QuantizedLinear,
    checked_scales: Vec<f32>,
    features: Vec<usize>,
    copies: Vec<PackedLinear>,
}

impl FloatWeights {
    /// Scales of the size that the integer ones have with their channels'.
    pub fn new(device: &Gpu, of: &Operands) -> Result<Self> {
        let (layer, n) = (&of.layer, of.n);
        let s2 = (0..layer.n()).flat_map(|row| layer.s2_row(row));
        let scales: Vec<f16> = s2.map(|&s2| f16::from_f32(f32::from(s2) * 1e-3)).collect();
        let mut copies = vec![PackedLinear::with_float_scales(device, layer, &scales, n)?];
        for _ in 1..rotation_copies(device, copies[0].image_bytes()) {
            copies.push(copies[0].copy(device)?);
        }
        let features = spread(n, CHECKED_FEATURES);
        let rows: Vec<usize> = features.iter().map(|feature| feature % layer.n()).collect();
        let groups = scales.len() / layer.n();
        let scales_of = |&row: &usize| {
            scales[row * groups..(row + 1) * groups]
                .iter()
                .map(|s| s.to_f32())
        };
        Ok(Self {
            checked: rows_of(layer, &rows)?,
            checked_scales: rows.iter().flat_map(scales_of).collect(),
            features,
            copies,
        })
    }

    /// How many copies there are.
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Copy `i` of the weights.
    pub fn weights(&self, i: usize) -> &PackedLinear {
        &self.copies[i]
    }

    /// As [`Operands::check`], with the specification of float group scales.
    pub fn check(&self, device: &Gpu, gemm: &Gemm, tokens: &Tokens) -> Result<()> {
        let problem = gemm.problem();
        let (GemmShape { m, n, k }, size) = (problem.shape, problem.output.size_bytes());
        let d = device.filled(m * n * size, 0xff)?;
        gemm.launch(self.weights(0), &tokens.device, &d)?;
        let cut = float_scales_cut(&gemm.config().variant, k);
        let mut row = vec![0u8; n * size];
        let mut expected = vec![0.0; self.features.len()];
        for token in spread(m, CHECKED_TOKENS) {
            d.read(token * n * size, &mut row)?;
            let a = &tokens.codes[token * k..(token + 1) * k];
            let of_token = (a, &tokens.scales[token..=token]);
            naive::gemm_w4f(of_token, &self.checked, &self.checked_scales, cut, &mut expected);
            for (&feature, &expected) in self.features.iter().zip(&expected) {
                let got = &row[feature * size..(feature + 1) * size];
                ensure!(
                    got == bytes_of(problem.output, expected),
                    "{} {} on {}: token {token}, feature {feature} is {got:02x?}, not {expected}",
                    gemm.config().variant.kernel(),
                    gemm.config(),
                    problem.shape
                );
            }
        }
        Ok(())
    }
}

fn bytes_of(output: Output, d: f32) -> Vec<u8> {
    match output {
        Output::F32 | Output::Sums => d.to_le_bytes().to_vec(),
        Output::F16 => f16::from_f32(d).to_le_bytes().to_vec(),
        Output::Bf16 => bf16::from_f32(d).to_le_bytes().to_vec(),
    }
}

/// A layer of some rows of another.
fn rows_of(layer: &QuantizedLinear, rows: &[usize]) -> Result<QuantizedLinear> {
    let bytes = |row: fn(&QuantizedLinear, usize) -> &[u8]| -> Vec<u8> {
        rows.iter().flat_map(|&i| row(layer, i).iter().copied()).collect()
    };
    let parts = QuantizedParts {
        q: bytes(QuantizedLinear::q_row),
        zero: bytes(QuantizedLinear::zero_row),
        s2: bytes(QuantizedLinear::s2_row),
        s1: rows.iter().map(|&row| layer.s1()[row]).collect(),
        bias: None,
        ta: None,
    };
    Ok(QuantizedLinear::new(
        (rows.len(), layer.k()),
        layer.group_size(),
        parts,
    )?)
}

/// At most `count` indices below `len`, the first and the last among them, with odd steps between.
fn spread(len: usize, count: usize) -> Vec<usize> {
    let mut next = random((len + count) as u64);
    let mut picked: Vec<usize> = match len <= count {
        true => (0..len).collect(),
        false => (0..count - 2)
            .map(|_| (next() % len as u64) as usize)
            .chain([0, len - 1])
            .collect(),
    };
    picked.sort_unstable();
    picked.dedup();
    picked
}

/// Codes over the whole range, zero points around the middle, group scales that keep the int8 guard.
fn random_layer((n, k): (usize, usize), size: GroupSize) -> Result<QuantizedLinear> {
    let mut next = random((n * k) as u64);
    let groups = size.num_groups(k);
    let (mut q, mut zero, mut s2) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        let zeros: Vec<u8> = (0..groups).map(|_| 6 + (next() % 4) as u8).collect();
        s2.extend((0..groups).map(|_| 9 + (next() % 5) as u8));
        let mut codes: Vec<u8> = (0..k).map(|_| (next() & 15) as u8).collect();
        keep_guard(&mut codes, &zeros, &s2[s2.len() - groups..], size);
        int4::pack_row(&codes, zeros[groups - 1], &mut q);
        int4::pack_row(&zeros, 0, &mut zero);
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
    Ok(QuantizedLinear::new((n, k), size, parts)?)
}

/// Moves codes to where scale times distance from the zero point fits an int8.
fn keep_guard(codes: &mut [u8], zeros: &[u8], scales: &[u8], size: GroupSize) {
    let k = codes.len();
    for (group, (&zero, &scale)) in zeros.iter().zip(scales).enumerate() {
        let reach = 127 / scale;
        for code in &mut codes[size.range(group, k)] {
            *code = (*code).clamp(zero.saturating_sub(reach), (zero + reach).min(15));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_layers_are_valid_for_every_group_size() {
        for size in ["32", "64", "128", "channel"] {
            let layer = random_layer((3, 300), group_size(size).unwrap()).unwrap();
            assert_eq!((layer.n(), layer.k()), (3, 300));
        }
    }

    #[test]
    fn checked_outputs_reach_from_first_to_last() {
        assert_eq!(spread(3, 48), [0, 1, 2]);
        let picked = spread(100_000, 64);
        assert_eq!((picked[0], picked[picked.len() - 1]), (0, 99_999));
        assert!(picked.len() > 60 && picked.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
