//! Trains an estimator: the factors of the rough time and power, then trees for what those leave.

use std::collections::BTreeMap;

use super::least_squares::fit as least_squares;
use super::options::{FitOptions, Learner};
use super::rough_factors::fit_power;
use super::training_set::Sample;
use crate::machine::Machine;
use crate::predict::physics::{NUM_TERMS, TimeFactors, rates, rough_power_w};
use crate::predict::{
    ConfigIndex, Estimator, FeatureRow, KernelConfig, NAMES, add_time_features, is_of_time,
};
use crate::trees::{BoostOptions, Ensemble, ForestOptions, Random, Table, boost, forest};

/// Kernels with fewer rows share trees.
const OWN_TREES_ROWS: usize = 200;

/// Fewer rows with power than this teach nothing.
pub(crate) const LEAST_POWER_ROWS: usize = 40;

/// Boosting of time and of power. More trees would lessen the errors by little; a prediction takes about 2 ns a tree, and is
/// to take 2 us.
const TIME_BOOST: BoostOptions = BoostOptions {
    trees: 320,
    ..BoostOptions::USUAL
};

const POWER_BOOST: BoostOptions = BoostOptions {
    trees: 192,
    rate: 0.1,
    bins: 128,
    ..BoostOptions::USUAL
};

/// Copies of a row that power is learned from, and the standard deviation of their times' errors.
const JITTERED: usize = 3;

const JITTER: f64 = 0.06;

/// The prior of the factors: a start of 2 us, all else as the ceilings say.
const PRIOR: TimeFactors = [2.0, 0.2, 0.2, 0.1, 0.2, 1.0, 1.0, 0.1, 0.1];

/// Between -1.5 and 1.5, half a unit off on average.
fn jitter(random: &mut Random) -> f64 {
    (0..3)
        .map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20) - 0.5)
        .sum()
}

/// Rows and targets of one ensemble.
struct TreeTargets {
    table: Table,
    targets: Vec<f32>,
    shapes: Vec<u32>,
}

impl Default for TreeTargets {
    fn default() -> Self {
        Self {
            table: Table::new(NAMES.len()),
            targets: Vec::new(),
            shapes: Vec::new(),
        }
    }
}

impl TreeTargets {
    fn push(&mut self, row: &FeatureRow, target: f64, shape: u32) {
        self.table.push(&row[..NAMES.len()]);
        self.targets.push(target as f32);
        self.shapes.push(shape);
    }

    /// Trees of the learner that the options name; `boost_options` apart from the seed.
    fn learn(self, options: &FitOptions, boost_options: BoostOptions) -> TrainedTrees {
        let seed = options.seed;
        match options.learner {
            Learner::Boost => self.boost(&BoostOptions {
                seed,
                ..boost_options
            }),
            Learner::Forest => self.grow_forest(&ForestOptions {
                seed,
                ..ForestOptions::default()
            }),
        }
    }

    fn boost(&self, options: &BoostOptions) -> TrainedTrees {
        let (trees, gains) = boost(&self.table, &self.targets, options);
        TrainedTrees {
            trees: Ensemble::Boost(trees),
            gains,
            out_of_bag: (0.0, 0),
        }
    }

    fn grow_forest(mut self, options: &ForestOptions) -> TrainedTrees {
        number(&mut self.shapes);
        let grown = forest(&self.table, &self.targets, 1, &self.shapes, options);
        let unseen = grown.out_of_bag.iter().zip(&self.targets);
        let errors = unseen
            .filter(|(predicted, _)| predicted.is_finite())
            .map(|(predicted, target)| f64::from((predicted - target).abs()));
        TrainedTrees {
            out_of_bag: errors.fold((0.0, 0), |(sum, count), error| (sum + error, count + 1)),
            trees: Ensemble::Forest(grown.trees),
            gains: grown.gains,
        }
    }
}

/// Trees with what became known beside them.
struct TrainedTrees {
    trees: Ensemble,
    gains: Vec<f64>,
    out_of_bag: (f64, usize),
}

/// Numbers without gaps for numbers with.
fn number(kinds: &mut [u32]) {
    let mut numbers = BTreeMap::new();
    for kind in kinds {
        let next = numbers.len() as u32;
        *kind = *numbers.entry(*kind).or_insert(next);
    }
}

/// Which trees each kernel has: its own, or those of all that have few rows. A library's types share theirs:
/// it chooses alike for them.
fn trees_of(samples: &[Sample<'_>], train: &[usize], config_index: &ConfigIndex) -> Vec<usize> {
    let library = |kernel: usize| config_index.kernels[kernel].name.starts_with("cublas");
    let mut counts = vec![0; config_index.kernels.len()];
    for &at in train {
        counts[config_index.kernel_of[samples[at].config]] += 1;
    }
    let (mut few, mut libraries, mut next) = (None, None, 0);
    let mut new = || {
        next += 1;
        next - 1
    };
    let group = counts.into_iter().enumerate().map(|(kernel, count)| match () {
        () if library(kernel) => *libraries.get_or_insert_with(&mut new),
        () if count >= OWN_TREES_ROWS => new(),
        () => *few.get_or_insert_with(&mut new),
    });
    group.collect()
}

/// Factors of each size of a kernel, in whatever groups and outputs, pulled towards those of the kernel.
fn factors(samples: &[Sample<'_>], train: &[usize], config_index: &ConfigIndex) -> Vec<TimeFactors> {
    let mut of_kernel: BTreeMap<&str, Terms> = BTreeMap::new();
    let mut of_size: BTreeMap<(&str, &str), Terms> = BTreeMap::new();
    for sample in train.iter().map(|&at| &samples[at]) {
        let row = (sample.physics.terms, sample.time_s);
        let facts = &config_index.configs[sample.config];
        of_kernel.entry(&facts.kernel).or_default().push(row);
        of_size
            .entry((&facts.kernel, &facts.config))
            .or_default()
            .push(row);
    }
    let kernels: BTreeMap<&str, TimeFactors> = of_kernel
        .into_iter()
        .map(|(kernel, rows)| (kernel, least_squares(&rows, &PRIOR)))
        .collect();
    let kernel = |name: &str| kernels.get(name).unwrap_or(&PRIOR);
    let sizes: BTreeMap<(&str, &str), TimeFactors> = of_size
        .into_iter()
        .map(|(size, rows)| (size, least_squares(&rows, kernel(size.0))))
        .collect();
    let of = |facts: &KernelConfig| {
        let size = sizes.get(&(facts.kernel.as_str(), facts.config.as_str()));
        *size.unwrap_or_else(|| kernel(&facts.kernel))
    };
    config_index.configs.iter().map(of).collect()
}

/// Terms and seconds of rows.
type Terms = Vec<([f64; NUM_TERMS], f64)>;

/// Names of the features that targets are learned from: time's, then power's.
pub(crate) fn features_of_target(power: bool) -> impl Iterator<Item = usize> {
    (0..NAMES.len()).filter(move |&feature| power || !is_of_time(feature))
}

impl Estimator {
    /// Learns from the samples named.
    pub fn fit(
        samples: &[Sample<'_>],
        train: &[usize],
        config_index: &ConfigIndex,
        machine: &Machine,
        options: &FitOptions,
    ) -> Self {
        let trees_of = trees_of(samples, train, config_index);
        let num_groups = trees_of.iter().max().map_or(0, |last| last + 1);
        let mut estimator = Self {
            factors: factors(samples, train, config_index),
            time: Vec::new(),
            trees_of,
            power_factors: Vec::new(),
            power: None,
            gains: [vec![0.0; NAMES.len()], vec![0.0; NAMES.len()]],
            out_of_bag: (0.0, 0),
        };
        for group in 0..num_groups {
            let of_group =
                |&&at: &&usize| estimator.trees_of_config(config_index, samples[at].config) == group;
            let rows: Vec<usize> = train.iter().filter(of_group).copied().collect();
            let trees = estimator.fit_time(samples, &rows, config_index, machine, options);
            estimator.time.push(trees);
        }
        estimator.fit_power(samples, train, config_index, machine, options);
        estimator
    }

    fn fit_time(
        &mut self,
        samples: &[Sample<'_>],
        rows: &[usize],
        config_index: &ConfigIndex,
        machine: &Machine,
        options: &FitOptions,
    ) -> Ensemble {
        let mut learning = TreeTargets::default();
        for &at in rows {
            let sample = &samples[at];
            let product = sample.row.product();
            let (row, rough_s) =
                self.features(config_index, sample.config, &product, &sample.physics, machine);
            learning.push(&row, (sample.time_s / rough_s).ln(), sample.shape);
        }
        let TrainedTrees {
            trees,
            gains,
            out_of_bag,
        } = learning.learn(options, TIME_BOOST);
        for (sum, gain) in self.gains[0].iter_mut().zip(gains) {
            *sum += gain;
        }
        self.out_of_bag.0 += out_of_bag.0;
        self.out_of_bag.1 += out_of_bag.1;
        trees
    }

    /// Power follows from how busy the machine is. It is predicted with a predicted time, so it is learned with times that
    /// are off as predictions are: each row a few times with another error.
    fn fit_power(
        &mut self,
        samples: &[Sample<'_>],
        train: &[usize],
        config_index: &ConfigIndex,
        machine: &Machine,
        options: &FitOptions,
    ) {
        let measured = train.iter().filter_map(|&at| {
            let sample = &samples[at];
            let power_w = sample.row.power_w.filter(|&power_w| power_w > 0.0)?;
            Some((sample, power_w, config_index.kernel_of[sample.config]))
        });
        let measured: Vec<(&Sample<'_>, f64, usize)> = measured.collect();
        if measured.len() < LEAST_POWER_ROWS {
            return;
        }
        let rows = measured
            .iter()
            .map(|&(sample, power_w, kernel)| (rates(&sample.physics, sample.time_s), power_w, kernel));
        self.power_factors = fit_power(&rows.collect::<Vec<_>>(), config_index.kernels.len());
        let mut learning = TreeTargets::default();
        let mut random = Random::new(options.seed, 7 << 32);
        for (sample, power_w, kernel) in measured {
            let product = sample.row.product();
            let (mut row, _) = self.features(config_index, sample.config, &product, &sample.physics, machine);
            for _ in 0..JITTERED {
                let time_s = sample.time_s * (2.0 * JITTER * jitter(&mut random)).exp();
                let rough_w = rough_power_w(
                    &self.power_factors[kernel],
                    &rates(&sample.physics, time_s),
                    machine,
                );
                add_time_features(&mut row, &sample.physics, time_s, rough_w);
                learning.push(&row, (power_w / rough_w).ln(), sample.shape);
            }
        }
        let learned = learning.learn(options, POWER_BOOST);
        self.gains[1] = learned.gains;
        self.power = Some(learned.trees);
    }
}
