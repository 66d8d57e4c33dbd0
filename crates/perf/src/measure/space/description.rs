//! The description of a sweep: its models, its sample, its limits. `--space FILE` reads one from JSON.

use serde::{Deserialize, Serialize};

use crate::error::PerfError;

/// No product of this project has more of anything.
const MOST_SIZE: usize = 131_071;

/// A sweep, as `--space FILE` gives it in JSON; every field has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Space {
    /// Shifts the sample and everything drawn.
    pub seed: u64,
    /// Weights `[N, K]` of real models; with each of `model_tokens` every configuration that exists is measured.
    pub model_weights: Vec<[usize; 2]>,
    /// Tokens M for them.
    pub model_tokens: Vec<usize>,
    /// Sampled shapes on which every sensible configuration is measured.
    pub num_exhaustive: usize,
    /// Sampled shapes on which some are.
    pub num_sampled: usize,
    /// Configurations of W4A8 kernels on each of the latter.
    pub configs_per_shape: usize,
    /// Least and most of M, N and K.
    pub m: [usize; 2],
    /// As `m`.
    pub n: [usize; 2],
    /// As `m`.
    pub k: [usize; 2],
    /// Most weights of a matrix.
    pub most_weights: usize,
    /// Most operations of a product.
    pub most_ops: f64,
    /// Shapes `[M, N, K]` for all 32 tiles of `sgemm_tiled` in all layouts.
    pub tile_shapes: Vec<[usize; 3]>,
    /// Large ones for tiles of 8 and more, some tiles only.
    pub large_tile_shapes: Vec<[usize; 3]>,
    /// Share of the rows whose energy is measured.
    pub energy_share: f64,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            seed: 1,
            model_weights: vec![
                [12_288, 4_096],
                [4_096, 4_096],
                [22_016, 4_096],
                [4_096, 11_008],
                [10_240, 8_192],
                [8_192, 8_192],
                [57_344, 8_192],
                [8_192, 28_672],
            ],
            model_tokens: vec![1, 16, 64, 256, 1_024, 4_096],
            num_exhaustive: 40,
            num_sampled: 380,
            configs_per_shape: 12,
            m: [1, 8_192],
            n: [256, 57_344],
            k: [256, 57_344],
            most_weights: 480_000_000,
            most_ops: 4e12,
            tile_shapes: vec![
                [64, 512, 512],
                [128, 256, 1_024],
                [256, 256, 256],
                [256, 1_024, 512],
                [333, 517, 259],
                [512, 512, 512],
                [512, 128, 2_048],
                [1_000, 300, 700],
                [1_024, 1_024, 256],
                [1_024, 1_024, 1_024],
                [16, 4_096, 512],
                [2_048, 512, 512],
            ],
            large_tile_shapes: vec![
                [2_048, 2_048, 2_048],
                [4_096, 4_096, 1_024],
                [4_096, 4_096, 4_096],
                [8_192, 8_192, 1_024],
                [8_192, 8_192, 8_192],
            ],
            energy_share: 0.165,
        }
    }
}

impl Space {
    /// What is measured on a CPU when nothing else is said: products a hundredth of a card's.
    pub fn of_cpu() -> Self {
        Self {
            model_weights: vec![
                [2_560, 2_048],
                [2_048, 2_048],
                [11_264, 2_048],
                [2_048, 5_632],
                [32_000, 2_048],
                [12_288, 4_096],
                [4_096, 11_008],
            ],
            model_tokens: vec![1, 4, 16, 64, 256, 512],
            num_exhaustive: 0,
            num_sampled: 120,
            m: [1, 1_024],
            n: [64, 12_288],
            k: [64, 8_192],
            most_weights: 24_000_000,
            most_ops: 3e9,
            tile_shapes: Vec::new(),
            large_tile_shapes: Vec::new(),
            ..Self::default()
        }
    }

    /// Checks a space from a file.
    ///
    /// # Errors
    /// A shape of zero, an empty range, one beyond what a product may have.
    pub fn validate(self, path: &std::path::Path) -> Result<Self, PerfError> {
        let malformed = |what: String| PerfError::Malformed {
            path: path.to_owned(),
            what,
        };
        for (name, [least, most]) in [("m", self.m), ("n", self.n), ("k", self.k)] {
            if least == 0 || least > most || most > MOST_SIZE {
                return Err(malformed(format!(
                    "{name} from {least} to {most}: expected a range within 1..{MOST_SIZE}"
                )));
            }
        }
        let weights = self.model_weights.iter().flatten();
        let tiles = self.tile_shapes.iter().chain(&self.large_tile_shapes).flatten();
        let sizes = weights.chain(&self.model_tokens).chain(tiles);
        match sizes.into_iter().find(|size| !(1..=MOST_SIZE).contains(*size)) {
            Some(size) => Err(malformed(format!("a size of {size}: expected 1 to {MOST_SIZE}"))),
            None if !(0.0..=1.0).contains(&self.energy_share) => Err(malformed(format!(
                "energy_share {}: expected 0 to 1",
                self.energy_share
            ))),
            None => Ok(self),
        }
    }
}
