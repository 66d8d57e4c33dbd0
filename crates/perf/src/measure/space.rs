//! What a sweep measures: shapes of real models and a low-discrepancy sample in log space, and which kernels run on each.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::data::Layout;
use crate::error::PerfError;

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

/// How many configurations of the W4A8 kernels are measured on a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configs {
    /// All that run.
    All,
    /// All that are not out of proportion.
    Sensible,
    /// So many, mostly sensible ones.
    Some(usize),
}

/// A library or kernel of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatKernel {
    /// cuBLAS.
    CublasBf16,
    /// cuBLAS.
    CublasF16,
    /// cuBLAS, no TF32.
    CublasF32,
    /// The paper's, with a tile.
    Tiled(usize),
}

/// One float product to be measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloatCase {
    /// By what.
    pub kernel: FloatKernel,
    /// Storage.
    pub layout: Layout,
    /// Factors of the product and of what was in D.
    pub blend: (f32, f32),
}

/// Everything that is measured on one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// M, N, K.
    pub shape: (usize, usize, usize),
    /// Group size of the W4A8 kernels, 0 for one scale a row.
    pub group_size: usize,
    /// Output of the W4A8 kernels: `bf16`, `f16`, `f32`.
    pub output: &'static str,
    /// Which of their configurations.
    pub configs: Configs,
    /// Whether the int8 library runs too.
    pub int8: bool,
    /// Float products.
    pub floats: Vec<FloatCase>,
    /// Share of its rows whose energy is measured.
    pub energy_share: f64,
}

/// A space with too few different shapes ends the drawing.
const MOST_DRAWS: usize = 100_000;
/// Operations of an FP32 product beyond which it costs too much time.
const MOST_F32_OPS: f64 = 1e11;
/// As above, for the tiled kernel.
const MOST_TILED_OPS: f64 = 1e10;

impl Space {
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

    /// The work for a GPU, most informative first: any beginning of it is a balanced set.
    pub fn tasks(&self) -> Vec<Task> {
        let mut cells = self.model_cells();
        cells.sort_by_key(|task| hash(self.seed, &format!("{:?}", task.shape)));
        let tiles = self.tile_tasks();
        let mut sampled = self.sampled(0, self.num_exhaustive, Configs::Sensible);
        sampled.extend(self.sampled(
            self.num_exhaustive,
            self.num_sampled,
            Configs::Some(self.configs_per_shape),
        ));
        // Tile studies are strewn over the first half of the sample.
        let step = (sampled.len() / (2 * tiles.len().max(1))).max(1);
        let mut tasks = cells;
        let mut tiles = tiles.into_iter();
        for (place, task) in sampled.into_iter().enumerate() {
            if place % step == 0 {
                tasks.extend(tiles.next());
            }
            tasks.push(task);
        }
        tasks.extend(tiles);
        tasks
    }

    fn model_cells(&self) -> Vec<Task> {
        let cells = self.model_weights.iter().flat_map(|&[n, k]| {
            let tokens = self.model_tokens.iter();
            tokens.map(move |&m| self.task((m, n, k), Configs::All))
        });
        cells.collect()
    }

    /// Shape `index` of the sample.
    fn shape(&self, index: usize) -> (usize, usize, usize) {
        let shift = |axis: u64| hash(self.seed, &axis.to_string()) as f64 / u64::MAX as f64;
        let at = |base: u64, axis: u64| (halton(index as u64 + 1, base) + shift(axis)).fract();
        let within = |[least, most]: [usize; 2], u: f64| {
            let (low, high) = (least as f64, most as f64 + 0.999);
            (low * (high / low).powf(u)) as usize
        };
        let (n, k) = (within(self.n, at(3, 1)), within(self.k, at(5, 2)));
        // Half of all models' sizes are multiples of 128; kernels care.
        let step = [128, 128, 16, 1][(hash(self.seed, &format!("step {index}")) % 4) as usize];
        let rounded = |size: usize, [least, most]: [usize; 2]| (size / step * step).clamp(least, most).max(1);
        (within(self.m, at(2, 0)), rounded(n, self.n), rounded(k, self.k))
    }

    fn sampled(&self, first: usize, count: usize, configs: Configs) -> Vec<Task> {
        // Shapes that are too large are passed over, so the index runs ahead of the count.
        let fits = |&(m, n, k): &(usize, usize, usize)| {
            n * k <= self.most_weights && ops((m, n, k)) <= self.most_ops
        };
        // Rounding makes some equal.
        let mut seen = HashSet::new();
        let shapes = (0..MOST_DRAWS).map(|index| self.shape(index)).filter(fits);
        let shapes = shapes.filter(|&shape| seen.insert(shape));
        shapes
            .skip(first)
            .take(count)
            .map(|shape| self.task(shape, configs))
            .collect()
    }

    fn task(&self, shape: (usize, usize, usize), configs: Configs) -> Task {
        let draw = |what: &str| hash(self.seed, &format!("{what} {shape:?}"));
        let mixed = matches!(configs, Configs::Some(_));
        let group_size = match draw("group") % 10 {
            0 if mixed => 32,
            1 if mixed => 64,
            2 if mixed => 0,
            _ => 128,
        };
        let output = match draw("output") % 12 {
            0 if mixed && group_size == 128 => "f16",
            1 if mixed && group_size == 128 => "f32",
            _ => "bf16",
        };
        Task {
            shape,
            group_size,
            output,
            configs,
            int8: true,
            floats: float_cases(shape, draw("floats")),
            energy_share: self.energy_share,
        }
    }

    fn tile_tasks(&self) -> Vec<Task> {
        let all = self.tile_shapes.iter().map(|&[m, n, k]| {
            let tiles = (1..=32).map(FloatKernel::Tiled);
            ((m, n, k), tiles.collect::<Vec<_>>(), Layout::ALL.to_vec(), 0.15)
        });
        let large = self.large_tile_shapes.iter().map(|&[m, n, k]| {
            let huge = ops((m, n, k)) > 3e11;
            let tiles: &[usize] = if huge {
                &[8, 16, 32]
            } else {
                &[4, 8, 12, 16, 20, 24, 28, 32]
            };
            let layouts = if huge {
                vec![Layout::Nn]
            } else {
                Layout::ALL.to_vec()
            };
            let kernels = tiles.iter().map(|&tile| FloatKernel::Tiled(tile)).collect();
            // Few and telling: all of the huge ones get energy, whatever weight their layout has.
            ((m, n, k), kernels, layouts, if huge { 1.5 } else { 0.4 })
        });
        let tasks = large.chain(all).map(|(shape, kernels, layouts, energy_share)| {
            let mut floats = Vec::new();
            for (place, &kernel) in kernels.iter().enumerate() {
                for (at, &layout) in layouts.iter().enumerate() {
                    let blend = BLENDS[if (place + at) % 8 == 7 { 2 } else { 0 }];
                    floats.push(FloatCase {
                        kernel,
                        layout,
                        blend,
                    });
                }
            }
            floats.extend(layouts.iter().map(|&layout| FloatCase {
                kernel: FloatKernel::CublasF32,
                layout,
                blend: BLENDS[0],
            }));
            Task {
                shape,
                group_size: 128,
                output: "bf16",
                configs: Configs::Some(0),
                int8: false,
                floats,
                energy_share: if self.energy_share > 0.0 {
                    energy_share
                } else {
                    0.0
                },
            }
        });
        tasks.collect()
    }
}

/// No product of this project has more of anything.
const MOST_SIZE: usize = 131_071;
/// alpha and beta.
const BLENDS: [(f32, f32); 3] = [(1.0, 0.0), (1.0, 1.0), (0.5, 0.5)];

/// cuBLAS in its types, layouts and blends, and the tiled kernel where it is not too slow.
fn float_cases(shape: (usize, usize, usize), draw: u64) -> Vec<FloatCase> {
    use FloatKernel::{CublasBf16, CublasF16, CublasF32, Tiled};
    let case = |kernel, layout, blend| FloatCase {
        kernel,
        layout,
        blend,
    };
    let mut cases = Vec::new();
    for kernel in [CublasBf16, CublasF16] {
        cases.extend(Layout::ALL.map(|layout| case(kernel, layout, BLENDS[0])));
    }
    // Sums of many products would leave f16's range.
    cases.push(case(CublasBf16, Layout::Nt, BLENDS[1]));
    cases.push(case(CublasBf16, Layout::ALL[(draw % 4) as usize], BLENDS[2]));
    cases.push(case(CublasF16, Layout::ALL[(draw / 4 % 4) as usize], BLENDS[2]));
    if ops(shape) <= MOST_F32_OPS {
        cases.extend(Layout::ALL.map(|layout| case(CublasF32, layout, BLENDS[0])));
        cases.push(case(CublasF32, Layout::Nt, BLENDS[2]));
    }
    if ops(shape) <= MOST_TILED_OPS {
        for turn in 0..4 {
            let draw = draw >> (8 * turn);
            let tile = 4 + (draw / 4 % 29) as usize;
            let blend = BLENDS[(draw / 128 % 3) as usize];
            let case = case(Tiled(tile), Layout::ALL[(draw % 4) as usize], blend);
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
    }
    cases
}

/// Multiply and add counted apart.
pub(crate) fn ops((m, n, k): (usize, usize, usize)) -> f64 {
    2.0 * m as f64 * n as f64 * k as f64
}

/// The digits of `index` in `base` behind the point.
fn halton(mut index: u64, base: u64) -> f64 {
    let (mut value, mut digit) = (0.0, 1.0);
    while index > 0 {
        digit /= base as f64;
        value += digit * (index % base) as f64;
        index /= base;
    }
    value
}

/// The same number for the same words on every machine (FNV-1a, mixed).
pub(crate) fn hash(seed: u64, words: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut z = words.as_bytes().iter().fold(start, fold);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn sample_covers_the_octaves_of_every_axis_and_keeps_its_limits() {
        let space = Space::default();
        let tasks = space.sampled(0, 400, Configs::Sensible);
        assert_eq!(tasks.len(), 400);
        let shapes: HashSet<_> = tasks.iter().map(|task| task.shape).collect();
        assert!(shapes.len() > 395);
        for (m, n, k) in &shapes {
            assert!((1..=8_192).contains(m) && (256..=57_344).contains(n) && (256..=57_344).contains(k));
            assert!(n * k <= space.most_weights && ops((*m, *n, *k)) <= space.most_ops);
        }
        let octaves: HashSet<u32> = shapes.iter().map(|(m, ..)| m.ilog2()).collect();
        assert_eq!(octaves.len(), 13 + usize::from(octaves.contains(&13)));
        assert!(shapes.iter().any(|(_, n, _)| n % 2 == 1));
        let small = shapes.iter().filter(|(m, ..)| *m <= 256).count();
        assert!(small > 200, "{small}");
    }

    #[test]
    fn default_space_is_as_large_as_the_set_that_is_wanted_and_repeats_nothing() {
        let tasks = Space::default().tasks();
        let floats: usize = tasks.iter().map(|task| task.floats.len()).sum();
        assert!(floats > 8_000, "{floats}");
        let cells = tasks.iter().filter(|task| task.configs == Configs::All).count();
        assert_eq!(cells, 48);
        assert!(tasks[..48].iter().all(|task| task.configs == Configs::All));
        let mut seen = HashSet::new();
        for task in &tasks {
            for case in &task.floats {
                assert!(
                    seen.insert(format!("{:?} {case:?}", task.shape)),
                    "{case:?} twice"
                );
            }
        }
        assert_eq!(tasks, Space::default().tasks());
        assert_ne!(
            tasks,
            Space {
                seed: 2,
                ..Space::default()
            }
            .tasks()
        );
    }

    #[test]
    fn shapes_of_zero_and_beyond_the_format_are_refused_in_words() {
        let path = Path::new("space.json");
        let zero = Space {
            n: [0, 5],
            ..Space::default()
        };
        assert!(zero.validate(path).unwrap_err().to_string().contains("n from 0"));
        let large = Space {
            tile_shapes: vec![[1, 1, 200_000]],
            ..Space::default()
        };
        let error = large.validate(path).unwrap_err().to_string();
        assert!(error.contains("200000"), "{error}");
        assert!(Space::default().validate(path).is_ok());
    }
}
