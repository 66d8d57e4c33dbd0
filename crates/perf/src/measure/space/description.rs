//! The description of a sweep: its models, its sample, its limits. `--space FILE` reads one from JSON.

use dualgrain_format::K_MAX;
use serde::{Deserialize, Serialize};

use crate::error::PerfError;

/// Most tokens and output features of a product: heads of supported families have up to 262,144.
const MOST_SIZE: usize = 1 << 20;

/// A sweep, as `--space FILE` gives it in JSON ([`Space::from_json`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Space {
    /// Shifts the sample and everything drawn.
    pub seed: u64,
    /// Shapes `[M, N, K]` that are measured before all others, in every configuration that exists.
    pub shapes: Vec<[usize; 3]>,
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
            shapes: Vec::new(),
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

    /// A space as a file describes it. What the file leaves out is as in `defaults`, the space of the device.
    ///
    /// # Errors
    /// No JSON object, an unknown field, a value of another kind.
    pub fn from_json(text: &str, defaults: &Self) -> Result<Self, serde_json::Error> {
        let given: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
        let mut fields = serde_json::to_value(defaults)?;
        given.into_iter().for_each(|(name, value)| fields[name] = value);
        serde_json::from_value(fields)
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
        for (name, [least, most], limit) in [
            ("m", self.m, MOST_SIZE),
            ("n", self.n, MOST_SIZE),
            ("k", self.k, K_MAX),
        ] {
            if least == 0 || least > most || most > limit {
                return Err(malformed(format!(
                    "{name} from {least} to {most}: expected a range within 1..{limit}"
                )));
            }
        }
        if let Some((what, size, limit)) = self.sizes().find(|(_, size, limit)| !(1..=*limit).contains(size))
        {
            return Err(malformed(format!(
                "{what} has a size of {size}: expected 1 to {limit}"
            )));
        }
        match (0.0..=1.0).contains(&self.energy_share) {
            true => Ok(self),
            false => Err(malformed(format!(
                "energy_share {}: expected 0 to 1",
                self.energy_share
            ))),
        }
    }

    /// Every size that is listed: the field, the size, the most that it may be.
    fn sizes(&self) -> impl Iterator<Item = (&'static str, usize, usize)> {
        let of_shape = |what: &'static str, [m, n, k]: [usize; 3]| {
            [(what, m, MOST_SIZE), (what, n, MOST_SIZE), (what, k, K_MAX)]
        };
        let listed = [
            ("shapes", &self.shapes),
            ("tile_shapes", &self.tile_shapes),
            ("large_tile_shapes", &self.large_tile_shapes),
        ];
        let shapes = listed
            .into_iter()
            .flat_map(move |(what, shapes)| shapes.iter().flat_map(move |&shape| of_shape(what, shape)));
        let weights = self
            .model_weights
            .iter()
            .flat_map(|&[n, k]| [("model_weights", n, MOST_SIZE), ("model_weights", k, K_MAX)]);
        let tokens = self.model_tokens.iter().map(|&m| ("model_tokens", m, MOST_SIZE));
        weights.chain(tokens).chain(shapes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_leaves_out_is_as_on_its_own_device() {
        let of_cpu = Space::of_cpu();
        let space = Space::from_json(r#"{"shapes": [[1, 262144, 2048]]}"#, &of_cpu).unwrap();
        let expected = Space {
            shapes: vec![[1, 262_144, 2_048]],
            ..of_cpu.clone()
        };
        assert_eq!(space, expected);
        let error = Space::from_json(r#"{"shape": []}"#, &of_cpu)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field `shape`"), "{error}");
        assert!(Space::from_json("[]", &of_cpu).is_err());
        assert!(Space::from_json(r#"{"seed": "one"}"#, &of_cpu).is_err());
    }

    #[test]
    fn shapes_of_zero_and_beyond_the_format_are_refused_in_words() {
        let refused = |space: Space| space.validate("space.json".as_ref()).unwrap_err().to_string();
        let zero = Space {
            n: [0, 5],
            ..Space::default()
        };
        assert!(refused(zero).contains("n from 0"));
        for shapes in [
            vec![[1, 1, K_MAX + 1]],
            vec![[1, MOST_SIZE + 1, 1]],
            vec![[0, 1, 1]],
        ] {
            let error = refused(Space {
                shapes,
                ..Space::default()
            });
            assert!(error.contains("shapes has a size of"), "{error}");
        }
        assert!(Space::default().validate("space.json".as_ref()).is_ok());
        assert!(Space::of_cpu().validate("space.json".as_ref()).is_ok());
    }
}
