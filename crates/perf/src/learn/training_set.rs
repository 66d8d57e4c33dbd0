//! A measured set made ready to learn from: sound rows as samples, with their configurations, their physics and their
//! folds.

use super::options::FitOptions;
use crate::data::{Dataset, Row};
use crate::error::PerfError;
use crate::machine::Machine;
use crate::predict::physics::Physics;
use crate::predict::{ConfigIndex, Estimate, Estimator, KernelCall, config_name};
use crate::trees::Random;

/// Share of rows that a random split tests on, as the paper's.
const RANDOM_TEST_SHARE: f64 = 0.2;
/// Fewer sound rows, or shapes, than these teach nothing.
const LEAST_ROWS: usize = 50;
const LEAST_SHAPES: usize = 10;

/// A row to learn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample<'a> {
    /// Its place in the set.
    pub row_idx: usize,
    /// The row.
    pub row: &'a Row,
    /// Its configuration's place in the index of configurations.
    pub config: usize,
    /// Number of its shape.
    pub shape: u32,
    /// What is known before learning.
    pub physics: Physics,
    /// Seconds.
    pub time_s: f64,
}

/// All sound rows as samples, and the number of distinct shapes.
pub(crate) fn samples<'a>(
    data: &'a Dataset,
    config_index: &ConfigIndex,
    machine: &Machine,
) -> Result<(Vec<Sample<'a>>, usize), PerfError> {
    let mut shapes = std::collections::HashMap::new();
    let mut samples = Vec::new();
    for (row_idx, row) in data.rows.iter().enumerate().filter(|(_, row)| row.is_sound()) {
        let name = config_name(row);
        let call = KernelCall {
            config: &name,
            ..KernelCall::of_row(row)
        };
        call.product.check()?;
        let (config, _) = config_index.find(&call)?;
        let operand_types = &config_index.operand_types[config_index.kernel_of[config]];
        let next = shapes.len() as u32;
        samples.push(Sample {
            row_idx,
            row,
            config,
            shape: *shapes.entry((row.m, row.n, row.k)).or_insert(next),
            physics: Physics::new(
                &config_index.configs[config],
                operand_types,
                &call.product,
                machine,
            ),
            time_s: row.time_s.unwrap_or(f64::NAN),
        });
    }
    Ok((samples, shapes.len()))
}

/// A set made ready to learn from.
pub(crate) struct TrainingSet<'a> {
    pub config_index: ConfigIndex,
    pub samples: Vec<Sample<'a>>,
    pub num_shapes: usize,
    pub num_folds: usize,
    /// Of each sample: the fold of its shape.
    pub folds: Vec<usize>,
    pub machine: &'a Machine,
}

impl<'a> TrainingSet<'a> {
    pub fn new(data: &'a Dataset, options: &FitOptions) -> Result<Self, PerfError> {
        let machine = &data.manifest.machine;
        machine.check()?;
        let config_index = ConfigIndex::new(data)?;
        let (samples, num_shapes) = samples(data, &config_index, machine)?;
        check_enough("rows to learn from", LEAST_ROWS, samples.len())?;
        check_enough("distinct shapes to learn from", LEAST_SHAPES, num_shapes)?;
        let num_folds = options.folds.clamp(2, num_shapes / 2);
        let mut fold_of: Vec<usize> = (0..num_shapes).map(|shape| shape % num_folds).collect();
        Random::new(options.seed, 1 << 32).shuffle(&mut fold_of);
        Ok(Self {
            num_folds,
            folds: samples
                .iter()
                .map(|sample| fold_of[sample.shape as usize])
                .collect(),
            config_index,
            samples,
            num_shapes,
            machine,
        })
    }

    /// Number of the kernel that a sample was measured with.
    pub(crate) fn kernel_of(&self, at: usize) -> usize {
        self.config_index.kernel_of[self.samples[at].config]
    }

    pub(crate) fn fit(&self, train: &[usize], options: &FitOptions) -> Estimator {
        Estimator::fit(&self.samples, train, &self.config_index, self.machine, options)
    }

    pub fn estimate(&self, estimator: &Estimator, at: usize) -> Estimate {
        let sample = &self.samples[at];
        let product = sample.row.product();
        estimator.estimate(
            &self.config_index,
            sample.config,
            &product,
            &sample.physics,
            self.machine,
        )
    }

    /// All samples, those outside a fold, or those a random split learns from.
    pub(crate) fn subset(&self, subset: Subset, seed: u64) -> Vec<usize> {
        let all = 0..self.samples.len();
        match subset {
            Subset::All => all.collect(),
            Subset::Outside(fold) => all.filter(|&at| self.folds[at] != fold).collect(),
            Subset::Random => {
                let count = (1.0 - RANDOM_TEST_SHARE) * self.samples.len() as f64;
                Random::new(seed, 2 << 32).sample(self.samples.len(), count as usize)
            }
        }
    }
}

fn check_enough(what: &str, least: usize, got: usize) -> Result<(), PerfError> {
    if got >= least {
        return Ok(());
    }
    Err(PerfError::TooLittle {
        what: what.to_owned(),
        expected: format!("at least {least} that are verified, timed and unmarked"),
        got: got.to_string(),
    })
}

/// Which samples an estimator is trained on.
#[derive(Clone, Copy)]
pub(crate) enum Subset {
    All,
    /// Those outside a fold.
    Outside(usize),
    /// Those that the random split learns from.
    Random,
}
