//! The shapes that a sweep measures, in order: those of real models, a low-discrepancy sample of the logarithms of the
//! sizes, and the shapes of the tile study. Any beginning of the list is a balanced set.

use std::collections::HashSet;

use dualgrain_format::GroupSize;

use super::description::Space;
use super::draw::{halton, hash};
use super::float_cases::{BLENDS, FloatCase, FloatKernel, float_cases};
use crate::product::{Layout, ops};

/// The group size of most models.
const USUAL_GROUP: GroupSize = GroupSize::Along(128);
/// A space with too few different shapes ends the drawing.
const MOST_DRAWS: usize = 100_000;

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

/// Everything that is measured on one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapeTask {
    /// M, N, K.
    pub shape: (usize, usize, usize),
    /// Group size of the W4A8 kernels.
    pub group_size: GroupSize,
    /// Output of the W4A8 kernels: `bf16`, `f16`, `f32`.
    pub output: &'static str,
    /// Which of their configurations.
    pub configs: Configs,
    /// Whether the int8 library runs too.
    pub int8: bool,
    /// Float products.
    pub floats: Vec<FloatCase>,
    /// The fraction of its rows whose energy is measured.
    pub energy_share: f64,
}

impl Space {
    /// The work, most informative first: any beginning of it is a balanced set. Shapes that the description lists come first of all.
    pub fn tasks(&self) -> Vec<ShapeTask> {
        let mut cells = self.model_cells();
        cells.sort_by_key(|task| hash(self.seed, &format!("{:?}", task.shape)));
        let mut tasks = self.sampled(0, self.num_exhaustive, Configs::Sensible);
        tasks.extend(self.sampled(
            self.num_exhaustive,
            self.num_sampled,
            Configs::Some(self.configs_per_shape),
        ));
        // Tile studies are strewn over the first half of the sample, shapes of models, which are large, over all of it.
        let (half, all) = (tasks.len() / 2, tasks.len());
        let tasks = strewn(strewn(tasks, self.tile_tasks(), half), cells, all);
        let listed = self.shapes.iter();
        let mut all: Vec<ShapeTask> = listed
            .map(|&[m, n, k]| self.task((m, n, k), Configs::All))
            .collect();
        all.extend(tasks.into_iter().filter(|task| !self.lists(task)));
        all
    }

    /// Whether a task of a model or of the sample has a shape that is listed.
    fn lists(&self, task: &ShapeTask) -> bool {
        let (m, n, k) = task.shape;
        task.configs != Configs::Some(0) && self.shapes.contains(&[m, n, k])
    }

    fn model_cells(&self) -> Vec<ShapeTask> {
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

    fn sampled(&self, first: usize, count: usize, configs: Configs) -> Vec<ShapeTask> {
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

    fn task(&self, shape: (usize, usize, usize), configs: Configs) -> ShapeTask {
        let draw = |what: &str| hash(self.seed, &format!("{what} {shape:?}"));
        let mixed = matches!(configs, Configs::Some(_));
        let group_size = match draw("group") % 10 {
            0 if mixed => GroupSize::Along(32),
            1 if mixed => GroupSize::Along(64),
            2 if mixed => GroupSize::WholeRow,
            _ => USUAL_GROUP,
        };
        let output = match draw("output") % 12 {
            0 if mixed && group_size == USUAL_GROUP => "f16",
            1 if mixed && group_size == USUAL_GROUP => "f32",
            _ => "bf16",
        };
        ShapeTask {
            shape,
            group_size,
            output,
            configs,
            int8: true,
            floats: float_cases(shape, draw("floats")),
            energy_share: self.energy_share,
        }
    }

    fn tile_tasks(&self) -> Vec<ShapeTask> {
        let large = self.large_tile_shapes.iter().copied().map(TileStudy::large);
        let all = self.tile_shapes.iter().copied().map(TileStudy::all);
        let mut tasks: Vec<ShapeTask> = large.chain(all).map(|study| study.task()).collect();
        if self.energy_share <= 0.0 {
            tasks.iter_mut().for_each(|task| task.energy_share = 0.0);
        }
        tasks
    }
}

/// `tasks` with the others strewn evenly over its first `within`; what does not find a place there comes last.
fn strewn(tasks: Vec<ShapeTask>, others: Vec<ShapeTask>, within: usize) -> Vec<ShapeTask> {
    let step = (within / others.len().max(1)).max(1);
    let mut others = others.into_iter();
    let mut all = Vec::new();
    for (place, task) in tasks.into_iter().enumerate() {
        if place % step == 0 {
            all.extend(others.next());
        }
        all.push(task);
    }
    all.extend(others);
    all
}

/// The tiles of the tiled kernel that run on one shape, in some layouts.
struct TileStudy {
    shape: (usize, usize, usize),
    tiles: Vec<usize>,
    layouts: &'static [Layout],
    energy_share: f64,
}

impl TileStudy {
    fn all([m, n, k]: [usize; 3]) -> Self {
        Self {
            shape: (m, n, k),
            tiles: (1..=32).collect(),
            layouts: &Layout::ALL,
            energy_share: 0.15,
        }
    }

    /// Few and telling: all of the huge ones get energy, whatever weight their layout has.
    fn large([m, n, k]: [usize; 3]) -> Self {
        let shape = (m, n, k);
        let (tiles, layouts, energy_share) = match ops(shape) > 3e11 {
            true => (vec![8, 16, 32], &[Layout::Nn][..], 1.5),
            false => (vec![4, 8, 12, 16, 20, 24, 28, 32], &Layout::ALL[..], 0.4),
        };
        Self {
            shape,
            tiles,
            layouts,
            energy_share,
        }
    }

    fn task(&self) -> ShapeTask {
        ShapeTask {
            shape: self.shape,
            group_size: USUAL_GROUP,
            output: "bf16",
            configs: Configs::Some(0),
            int8: false,
            floats: self.floats(),
            energy_share: self.energy_share,
        }
    }

    /// Every tile in every layout, some of them with a blend, then the library in every layout.
    fn floats(&self) -> Vec<FloatCase> {
        let mut floats = Vec::new();
        for (place, &tile) in self.tiles.iter().enumerate() {
            for (at, &layout) in self.layouts.iter().enumerate() {
                floats.push(FloatCase {
                    kernel: FloatKernel::Tiled(tile),
                    layout,
                    blend: BLENDS[if (place + at) % 8 == 7 { 2 } else { 0 }],
                });
            }
        }
        floats.extend(self.layouts.iter().map(|&layout| FloatCase {
            kernel: FloatKernel::CublasF32,
            layout,
            blend: BLENDS[0],
        }));
        floats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn any_beginning_has_small_and_large_shapes() {
        for space in [Space::default(), Space::of_cpu()] {
            let tasks = space.tasks();
            for beginning in [12, 24, 48, 96] {
                let sizes = tasks[..beginning].iter().map(|task| ops(task.shape));
                let mut sizes: Vec<f64> = sizes.filter(|&ops| ops > 0.0).collect();
                sizes.sort_by(f64::total_cmp);
                let (small, large) = (sizes[beginning / 4], sizes[beginning - 1 - beginning / 4]);
                assert!(large / small > 8.0, "{beginning}: {small:e} {large:e}");
                let cells = tasks[..beginning]
                    .iter()
                    .filter(|task| task.configs == Configs::All);
                assert!((2..=beginning / 2 + 1).contains(&cells.count()), "{beginning}");
            }
        }
    }

    #[test]
    fn default_space_is_as_large_as_the_set_that_is_wanted_and_repeats_nothing() {
        let tasks = Space::default().tasks();
        let floats: usize = tasks.iter().map(|task| task.floats.len()).sum();
        assert!(floats > 8_000, "{floats}");
        let cells = tasks.iter().filter(|task| task.configs == Configs::All).count();
        assert_eq!(cells, 48);
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
        let listed = Space {
            shapes: vec![[16, 12_288, 4_096], [1, 262_144, 2_048]],
            ..Space::default()
        };
        let shapes: Vec<_> = listed.tasks().iter().map(|task| task.shape).collect();
        assert_eq!(shapes[..2], [(16, 12_288, 4_096), (1, 262_144, 2_048)]);
        assert_eq!(
            shapes.len(),
            tasks.len() + 1,
            "a model's cell that is listed comes once"
        );
        assert_ne!(
            tasks,
            Space {
                seed: 2,
                ..Space::default()
            }
            .tasks()
        );
    }
}
