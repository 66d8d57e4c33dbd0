//! What a model folder stores: bytes and bits by part.

use std::collections::BTreeMap;

use dualgrain_format::LinearScheme;
use serde::Serialize;

use crate::{BlockSpec, ModelConfig, Weights, WeightsError};

/// Sizes of the tensors in a model folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Storage {
    /// Bytes of all tensors.
    pub file_bytes: u64,
    /// Weights in the blocks' linears (biases left out).
    pub linear_weights: u64,
    /// Bits that store them: codes and scales, or floats.
    pub linear_bits: u64,
    /// Bytes of everything else: embeddings, head, norms, biases.
    pub other_bytes: u64,
    /// How many of the blocks' linears have each scheme; `w4` alone means the folder's usual group size. Those that another program packed
    /// have its name.
    pub schemes: BTreeMap<String, usize>,
    /// Those of `linear_weights` that are stored in four bits.
    #[serde(skip)]
    pub w4_weights: u64,
}

impl Storage {
    /// Adds up the tensors of a folder. Nothing is read but their headers.
    ///
    /// # Errors
    /// A tensor that the configuration asks for is missing.
    pub fn measure(weights: &Weights, config: &ModelConfig) -> Result<Self, WeightsError> {
        let mut storage = Self {
            file_bytes: weights.size_bytes() as u64,
            linear_weights: 0,
            linear_bits: 0,
            other_bytes: 0,
            schemes: BTreeMap::new(),
            w4_weights: 0,
        };
        for layer in 0..config.num_layers {
            for linear in BlockSpec::new(config, layer).linears.values() {
                for member in &linear.members {
                    let num_weights = (member.rows.len() * linear.k) as u64;
                    storage.add_linear(weights, config, (&member.name, num_weights))?;
                }
            }
        }
        storage.other_bytes = storage.file_bytes.saturating_sub(storage.linear_bits / 8);
        Ok(storage)
    }

    fn add_linear(
        &mut self,
        weights: &Weights,
        config: &ModelConfig,
        (name, num_weights): (&str, u64),
    ) -> Result<(), WeightsError> {
        let (scheme, word) = match &config.quantization {
            Some(q) => (q.scheme(name), q.scheme(name).spelled(q.group_size)),
            None => (LinearScheme::Float, float_word(weights, name)),
        };
        let suffixes: &[&str] = match scheme {
            LinearScheme::Float => &["weight"],
            LinearScheme::W8 => &["w8", "s1"],
            LinearScheme::W4 { .. } => &["q", "zero", "s2", "s1"],
        };
        *self.schemes.entry(word).or_default() += 1;
        self.linear_weights += num_weights;
        if scheme.group_size().is_some() {
            self.w4_weights += num_weights;
        }
        for suffix in suffixes {
            self.linear_bits += 8 * weights.stored(&format!("{name}.{suffix}"))?.2 as u64;
        }
        Ok(())
    }

    /// Numbers that the model was trained to have: weights of four bits, and every element of `*.weight`, `*.w8` and `*.bias` tensors.
    ///
    /// # Errors
    /// A header of a tensor is damaged.
    pub fn parameters(&self, weights: &Weights) -> Result<u64, WeightsError> {
        let mut others = 0;
        for name in weights.names() {
            if name.ends_with(".weight") || name.ends_with(".bias") || name.ends_with(".w8") {
                others += weights.stored(&name)?.1.iter().product::<usize>() as u64;
            }
        }
        Ok(others + self.w4_weights)
    }

    /// Stored bits of the blocks' linears over their weights.
    pub fn bits_per_weight(&self) -> f64 {
        self.linear_bits as f64 / self.linear_weights.max(1) as f64
    }
}

/// What a linear is called that comes as floats: another program may have packed it.
fn float_word(weights: &Weights, name: &str) -> String {
    let packed = weights.foreign().filter(|_| weights.is_packed(name));
    packed.unwrap_or_else(|| LinearScheme::Float.to_string())
}
