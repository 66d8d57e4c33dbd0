//! Rotary angles, computed as transformers does: frequencies and angles in f32, cos and sin correctly rounded.

use crate::RopeConfig;

/// Inverse frequencies of a model's rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Angles {
    inv_freq: Vec<f32>,
}

impl Angles {
    /// Frequencies for heads of `head_dim` elements (all of them rotated).
    pub fn new(rope: &RopeConfig, head_dim: usize) -> Self {
        let _ = (rope, head_dim);
        todo!()
    }

    /// Inverse frequencies [head_dim / 2].
    pub fn inv_freq(&self) -> &[f32] {
        &self.inv_freq
    }

    /// Appends a row [cos | sin] of `head_dim` values for each position.
    pub fn rows(&self, positions: &[u32], rows: &mut Vec<f32>) {
        let _ = (positions, rows);
        todo!()
    }
}
