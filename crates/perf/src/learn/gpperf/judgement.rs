//! How well a random forest predicts the log, by split and target.

use std::collections::BTreeMap;

use super::log::{FEATURES, LogRow, features};
use super::splits::{clip, numbers, tests};
use crate::error::PerfError;
use crate::learn::options::FitOptions;
use crate::predict::{Score, Scores};
use crate::trees::{ForestOptions, Table, forest, parallel};

/// What the figures are to be read with.
pub const NOTES: &str = "paper: its protocol (targets clipped to 1..99 %, 80/20 of rows at random, power and energy from the rows that have\n\
    power). Its claims: runtime R2 0.98, mean error 15.57 %; power R2 0.78, median error 5.42 %; energy R2 about 0.86;\n\
    throughput R2 about 0.865. random: the same without clipping. run, shape: no kernel run, or no shape, on both sides.\n\
    Power was sampled after the process had ended: what is learned of it is whether the card had gone to sleep.\n\
    Units are the log's: ms, W, its `energy`, GFLOP/s (its TFLOPS), and its throughput over its power.\n";

/// How well a forest does on the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Rows.
    pub num_rows: usize,
    /// Those with power.
    pub num_power_rows: usize,
    /// Kernel runs that differ in what reached the kernel.
    pub num_runs: usize,
    /// Shapes.
    pub num_shapes: usize,
    /// By split: `paper`, `random`, `run`, `shape`.
    pub scores: Scores,
}

/// Targets, all of one row or none: runtime and throughput of every row; power, energy and their ratio of some.
const TIME_TARGETS: [&str; 2] = ["runtime", "throughput"];
const POWER_TARGETS: [&str; 3] = ["power", "energy", "throughput_per_watt"];

/// One set of targets over the rows that have them.
struct TargetGroup {
    names: &'static [&'static str],
    rows: Vec<usize>,
    /// `[rows][names]`.
    values: Vec<f64>,
}

/// Judges the log by the paper's split and by honest ones.
///
/// # Errors
/// Too few rows.
pub fn judge(log: &[LogRow], options: &FitOptions) -> Result<Judgement, PerfError> {
    check_enough(log)?;
    let shape = |row: &LogRow| format!("{}|{}|{}", row.m, row.n, row.k);
    let run = |row: &LogRow| format!("{}|{}|{}|{}", shape(row), row.kernel, row.alpha, row.beta);
    let (runs, shapes) = (numbers(log.iter().map(run)), numbers(log.iter().map(shape)));
    let alone: Vec<u32> = (0..log.len() as u32).collect();
    let splits = [
        ("paper", &alone, true),
        ("random", &alone, false),
        ("run", &runs, false),
        ("shape", &shapes, false),
    ];
    let groups = [time_targets(log), power_targets(log)];
    let jobs: Vec<_> = splits
        .iter()
        .flat_map(|split| groups.iter().map(move |group| (split, group)))
        .collect();
    let results = parallel(options.threads, jobs.len(), |at| {
        let ((_, kinds, clipped), group) = jobs[at];
        scores(log, group, kinds, *clipped, options)
    });
    let mut all = Scores::new();
    for (((split, ..), _), scores) in jobs.iter().zip(results) {
        all.entry((*split).to_owned()).or_default().extend(scores);
    }
    let count = |kinds: &[u32]| kinds.iter().max().map_or(0, |&last| last as usize + 1);
    Ok(Judgement {
        num_rows: log.len(),
        num_power_rows: groups[1].rows.len(),
        num_runs: count(&runs),
        num_shapes: count(&shapes),
        scores: all,
    })
}

fn check_enough(log: &[LogRow]) -> Result<(), PerfError> {
    if log.len() >= 100 {
        return Ok(());
    }
    Err(PerfError::TooLittle {
        what: "rows of the log".to_owned(),
        expected: "at least 100".to_owned(),
        got: log.len().to_string(),
    })
}

fn time_targets(log: &[LogRow]) -> TargetGroup {
    TargetGroup {
        names: &TIME_TARGETS,
        rows: (0..log.len()).collect(),
        values: log
            .iter()
            .flat_map(|row| [row.runtime_ms, row.tflops_field])
            .collect(),
    }
}

fn power_targets(log: &[LogRow]) -> TargetGroup {
    let mut group = TargetGroup {
        names: &POWER_TARGETS,
        rows: Vec::new(),
        values: Vec::new(),
    };
    for (at, row) in log.iter().enumerate() {
        // The log writes energy with three decimals: what it rounds to 0 is no target of a ratio.
        if let (Some(power), Some(energy)) = (row.power_w, row.energy_joules.filter(|&energy| energy > 0.0)) {
            group.rows.push(at);
            group.values.extend([power, energy, row.tflops_field / power]);
        }
    }
    group
}

impl TargetGroup {
    /// The logarithm of what a target grows with. What grows with the operations is learned for one of them: trees cannot
    /// grow beyond what they have seen.
    fn offset(&self, log: &[LogRow], at: usize, output: usize) -> f64 {
        let row = &log[self.rows[at]];
        let grows = matches!(self.names[output], "runtime" | "energy");
        if grows { (row.m * row.n * row.k).ln() } else { 0.0 }
    }

    /// The values, clipped as the paper's are where `clipped`.
    fn values(&self, clipped: bool) -> Vec<f64> {
        let (mut values, outputs) = (self.values.clone(), self.names.len());
        if clipped {
            (0..outputs).for_each(|output| clip(&mut values, output, outputs));
        }
        values
    }
}

/// Scores by target, of every row predicted by a forest that was trained without its part of the split.
fn scores(
    log: &[LogRow],
    group: &TargetGroup,
    kinds: &[u32],
    clipped: bool,
    options: &FitOptions,
) -> BTreeMap<String, Score> {
    let outputs = group.names.len();
    let values = group.values(clipped);
    let of_group: Vec<u32> = group.rows.iter().map(|&row| kinds[row]).collect();
    let mut table = Table::new(FEATURES);
    group
        .rows
        .iter()
        .for_each(|&row| table.push(&features(&log[row])));
    let mut pairs = vec![Vec::new(); outputs];
    for test in tests(&of_group, options.seed) {
        let train: Vec<usize> = (0..group.rows.len()).filter(|&at| !test[at]).collect();
        let targets: Vec<f32> = train
            .iter()
            .flat_map(|&at| (0..outputs).map(move |output| (at, output)))
            .map(|(at, output)| (values[at * outputs + output].ln() - group.offset(log, at, output)) as f32)
            .collect();
        let bags = numbers(train.iter().map(|&at| of_group[at].to_string()));
        let forest_options = ForestOptions {
            seed: options.seed,
            ..ForestOptions::default()
        };
        let grown = forest(&table.select(&train), &targets, outputs, &bags, &forest_options);
        for at in (0..group.rows.len()).filter(|&at| test[at]) {
            let predicted = grown.trees.sums(table.row(at));
            for (output, pairs) in pairs.iter_mut().enumerate() {
                let log_predicted = f64::from(predicted[output]) + group.offset(log, at, output);
                pairs.push((values[at * outputs + output], log_predicted.exp()));
            }
        }
    }
    let scored = group.names.iter().zip(&pairs);
    scored
        .filter_map(|(name, pairs)| Some(((*name).to_owned(), Score::new(pairs)?)))
        .collect()
}
