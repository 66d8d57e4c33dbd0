//! The same codes with float group scales, which `bench gemm --grains` compares with.

use anyhow::Result;
use dualgrain::format::{QuantizedLinear, QuantizedParts};
use dualgrain_cuda::{Gemm, Gpu, PackedLinear, float_scales_cut};
use dualgrain_device::naive;
use half::f16;

use crate::measure::gemm::operands::{
    CHECKED_FEATURES, Operands, Tokens, bytes_of, check_outputs, copies_of,
};
use crate::measure::gemm::random::spread;

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
        let (layer, n) = of.layer();
        let s2 = (0..layer.n()).flat_map(|row| layer.s2_row(row));
        let scales: Vec<f16> = s2.map(|&s2| f16::from_f32(f32::from(s2) * 1e-3)).collect();
        let copies = copies_of(
            device,
            PackedLinear::with_float_scales(device, layer, &scales, n)?,
        )?;
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

    /// The weights, in copies that pass the caches.
    pub fn copies(&self) -> &[PackedLinear] {
        &self.copies
    }

    /// As [`Operands::check`], with the specification of float group scales.
    pub fn check(&self, device: &Gpu, gemm: &Gemm, tokens: &Tokens) -> Result<()> {
        let problem = gemm.problem();
        let k = problem.shape.k;
        let cut = float_scales_cut(&gemm.config().variant, k);
        let expected = |token: usize| {
            let mut expected = vec![0.0; self.features.len()];
            let of_token = (tokens.codes_of(token, k), &tokens.scales[token..=token]);
            naive::gemm_w4f(of_token, &self.checked, &self.checked_scales, cut, &mut expected);
            let outputs = expected.into_iter();
            outputs.map(|d| bytes_of(problem.output, d)).collect()
        };
        check_outputs(device, gemm, (&self.copies[0], tokens), &self.features, expected)
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
