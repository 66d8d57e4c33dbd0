//! Operands of `bench gemm`: random layers large enough for any cache, and the specification's word on some outputs.

use anyhow::{Result, ensure};
use dualgrain::format::{GemmShape, GroupSize, QuantizedLinear};
use dualgrain_cuda::{
    BLOCK_N, Buffer, CudaError, Gemm, GemmProblem, Gpu, Output, PackedLinear, QuantizedTokens,
    rotation_copies,
};
use dualgrain_device::naive;
use half::{bf16, f16};

use crate::measure::gemm::random::{random, random_bf16, random_layer, spread};

/// Rows that differ; a larger layer repeats them.
const OWN_ROWS: usize = 1_024;
/// Tokens that differ.
const OWN_TOKENS: usize = 512;
/// Tokens that are compared with the specification.
const CHECKED_TOKENS: usize = 48;
/// Features of these tokens that are compared.
pub const CHECKED_FEATURES: usize = 64;

/// Weights of one shape in copies that pass the caches.
pub struct Operands {
    layer: QuantizedLinear,
    n: usize,
    copies: Vec<PackedLinear>,
}

/// Activations on both sides.
pub struct Tokens {
    codes: Vec<i8>,
    /// One for each token.
    pub scales: Vec<f32>,
    /// On the card.
    pub device: QuantizedTokens,
}

impl Operands {
    /// Random weights.
    pub fn new(device: &Gpu, (n, k): (usize, usize), size: GroupSize) -> Result<Self> {
        let rows = n.min(OWN_ROWS).next_multiple_of(BLOCK_N);
        let layer = random_layer((rows, k), size)?;
        let copies = copies_of(device, PackedLinear::repeated(device, &layer, n)?)?;
        Ok(Self { layer, n, copies })
    }

    /// N and K.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.layer.k())
    }

    /// Bytes of one copy.
    pub fn image_bytes(&self) -> usize {
        self.copies[0].image_bytes()
    }

    /// The layer that the weights repeat, and N.
    pub fn layer(&self) -> (&QuantizedLinear, usize) {
        (&self.layer, self.n)
    }

    /// The weights, in copies that pass the caches.
    pub fn copies(&self) -> &[PackedLinear] {
        &self.copies
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
        let features = spread(self.n, CHECKED_FEATURES);
        let weights: Vec<Vec<i8>> = features.iter().map(|&feature| self.w8_row(feature)).collect();
        let output = gemm.problem().output;
        let expected = |token: usize| {
            let rows = features.iter().zip(&weights);
            rows.map(|(&feature, w8)| self.expected(output, tokens, token, feature, w8))
                .collect()
        };
        check_outputs(device, gemm, (&self.copies[0], tokens), &features, expected)
    }

    fn w8_row(&self, feature: usize) -> Vec<i8> {
        let mut w8 = vec![0; self.layer.k()];
        self.layer.w8_row(feature % self.layer.n(), &mut w8);
        w8
    }

    /// Bytes of one output.
    fn expected(&self, output: Output, tokens: &Tokens, token: usize, feature: usize, w8: &[i8]) -> Vec<u8> {
        let codes = tokens.codes_of(token, w8.len());
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

impl Tokens {
    /// The `k` codes of a token.
    pub fn codes_of(&self, token: usize, k: usize) -> &[i8] {
        &self.codes[token * k..(token + 1) * k]
    }
}

/// Runs a product once and compares outputs of some tokens and the given features with the bytes that `expected` says of a
/// token.
pub fn check_outputs(
    device: &Gpu,
    gemm: &Gemm,
    (weights, tokens): (&PackedLinear, &Tokens),
    features: &[usize],
    mut expected: impl FnMut(usize) -> Vec<Vec<u8>>,
) -> Result<()> {
    let problem = gemm.problem();
    let (GemmShape { m, n, .. }, size) = (problem.shape, problem.output.size_bytes());
    let d = room_for(device, problem)?;
    gemm.launch(weights, &tokens.device, &d)?;
    let mut row = vec![0u8; n * size];
    for token in spread(m, CHECKED_TOKENS) {
        d.read(token * n * size, &mut row)?;
        for (&feature, expected) in features.iter().zip(expected(token)) {
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

/// Room for a product's outputs.
pub fn room_for(device: &Gpu, problem: &GemmProblem) -> Result<Buffer, CudaError> {
    let elements = problem.shape.m * problem.shape.n;
    device.filled(elements * problem.output.size_bytes(), 0xff)
}

/// `first` and copies of it that pass the second-level cache together.
pub fn copies_of(device: &Gpu, first: PackedLinear) -> Result<Vec<PackedLinear>, CudaError> {
    let mut copies = vec![first];
    for _ in 1..rotation_copies(device, copies[0].image_bytes()) {
        copies.push(copies[0].copy(device)?);
    }
    Ok(copies)
}

/// An output as it lies in memory.
pub fn bytes_of(output: Output, d: f32) -> Vec<u8> {
    match output {
        Output::F32 | Output::Sums => d.to_le_bytes().to_vec(),
        Output::F16 => f16::from_f32(d).to_le_bytes().to_vec(),
        Output::Bf16 => bf16::from_f32(d).to_le_bytes().to_vec(),
    }
}
