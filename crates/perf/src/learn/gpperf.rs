//! GPPerf's own log (arXiv 2411.16954), judged by its own protocol and by an honest one.
//!
//! Its protocol: targets clipped to their 1 % and 99 % quantiles over all rows, then rows split 80 to 20 at random, a random
//! forest on sizes, block sizes, intensity, bytes and operations. The log's block sizes and layouts never reached the
//! kernel, so that a random split trains on copies of what it tests; the honest splits keep all rows of a distinct kernel
//! run (sizes, kernel, alpha, beta), or of a shape, on one side, and clip nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::fit::Scores;
use crate::error::PerfError;
use crate::predict::{FitOptions, Score};
use crate::trees::{Forest, Random, Table, forest, parallel};

/// What the figures are to be read with.
pub const NOTES: &str = "paper: its protocol (targets clipped to 1..99 %, 80/20 of rows at random, power and energy from the rows that have\n\
    power). Its claims: runtime R2 0.98, mean error 15.57 %; power R2 0.78, median error 5.42 %; energy R2 about 0.86;\n\
    throughput R2 about 0.865. random: the same without clipping. run, shape: no kernel run, or no shape, on both sides.\n\
    Power was sampled after the process had ended: what is learned of it is whether the card had gone to sleep.\n\
    Units are the log's: ms, W, its `energy`, GFLOP/s (its TFLOPS), and its throughput over its power.\n";

/// A row of the log: the columns that are used.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LogRow {
    m: f64,
    n: f64,
    k: f64,
    kernel: String,
    blk_m: f64,
    blk_n: f64,
    blk_k: f64,
    alpha: f64,
    beta: f64,
    runtime_ms: f64,
    power_w: Option<f64>,
    energy_joules: Option<f64>,
    tflops_field: f64,
    arith_intensity: f64,
    layout: String,
}

/// Reads the log.
///
/// # Errors
/// A file that is missing, or a line that is no row of it.
pub fn read(path: &Path) -> Result<Vec<LogRow>, PerfError> {
    let file = std::fs::File::open(path).map_err(PerfError::io(path))?;
    let mut csv = csv::Reader::from_reader(file);
    let row = |row: Result<LogRow, csv::Error>| {
        let corrupt = |line, what| PerfError::CorruptRow {
            path: path.to_owned(),
            line,
            what,
        };
        let row = row.map_err(|e| corrupt(e.position().map_or(0, csv::Position::line), e.to_string()))?;
        match row.runtime_ms > 0.0 && row.tflops_field > 0.0 && row.m * row.n * row.k > 0.0 {
            true => Ok(row),
            false => Err(corrupt(
                0,
                format!("a time, rate or size that is not above 0: {row:?}"),
            )),
        }
    };
    csv.deserialize().map(row).collect()
}

/// How well a forest does on the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
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

/// Parts that runs or shapes are dealt into.
const FOLDS: usize = 5;
/// Share of rows a random split tests on.
const TEST_SHARE: f64 = 0.2;
const FEATURES: usize = 18;

/// Targets, all of one row or none: runtime and throughput of every row; power, energy and their ratio of some.
const TIME_TARGETS: [&str; 2] = ["runtime", "throughput"];
const POWER_TARGETS: [&str; 3] = ["power", "energy", "throughput_per_watt"];

/// One set of targets over the rows that have them.
struct Task {
    names: &'static [&'static str],
    rows: Vec<usize>,
    /// `[rows][names]`.
    values: Vec<f64>,
}

/// Judges the log by the paper's split and by honest ones.
///
/// # Errors
/// Too few rows.
pub fn judge(log: &[LogRow], options: &FitOptions) -> Result<Judged, PerfError> {
    if log.len() < 100 {
        return Err(PerfError::TooLittle {
            what: "rows of the log".to_owned(),
            expected: "at least 100".to_owned(),
            got: log.len().to_string(),
        });
    }
    let runs = numbers(log.iter().map(|row| {
        format!(
            "{}|{}|{}|{}|{}|{}",
            row.m, row.n, row.k, row.kernel, row.alpha, row.beta
        )
    }));
    let shapes = numbers(log.iter().map(|row| format!("{}|{}|{}", row.m, row.n, row.k)));
    let alone: Vec<u32> = (0..log.len() as u32).collect();
    let splits = [
        ("paper", &alone, true),
        ("random", &alone, false),
        ("run", &runs, false),
        ("shape", &shapes, false),
    ];
    let tasks = [time_task(log), power_task(log)];
    let jobs: Vec<_> = splits
        .iter()
        .flat_map(|split| tasks.iter().map(move |task| (split, task)))
        .collect();
    let results = parallel(options.threads, jobs.len(), |at| {
        let ((_, kinds, clipped), task) = jobs[at];
        scores(log, task, kinds, *clipped, options)
    });
    let mut all = Scores::new();
    for (((split, ..), _), scores) in jobs.iter().zip(results) {
        all.entry((*split).to_owned()).or_default().extend(scores);
    }
    let count = |kinds: &[u32]| kinds.iter().max().map_or(0, |&last| last as usize + 1);
    Ok(Judged {
        num_rows: log.len(),
        num_power_rows: tasks[1].rows.len(),
        num_runs: count(&runs),
        num_shapes: count(&shapes),
        scores: all,
    })
}

/// Numbers from 0 for keys, in order of their first occurrence.
fn numbers(keys: impl Iterator<Item = String>) -> Vec<u32> {
    let mut known = BTreeMap::new();
    keys.map(|key| {
        let next = known.len() as u32;
        *known.entry(key).or_insert(next)
    })
    .collect()
}

fn time_task(log: &[LogRow]) -> Task {
    Task {
        names: &TIME_TARGETS,
        rows: (0..log.len()).collect(),
        values: log
            .iter()
            .flat_map(|row| [row.runtime_ms, row.tflops_field])
            .collect(),
    }
}

fn power_task(log: &[LogRow]) -> Task {
    let mut task = Task {
        names: &POWER_TARGETS,
        rows: Vec::new(),
        values: Vec::new(),
    };
    for (at, row) in log.iter().enumerate() {
        // The log writes energy with three decimals: what it rounds to 0 is no target of a ratio.
        if let (Some(power), Some(energy)) = (row.power_w, row.energy_joules.filter(|&energy| energy > 0.0)) {
            task.rows.push(at);
            task.values.extend([power, energy, row.tflops_field / power]);
        }
    }
    task
}

/// What the paper learns from, and what of the kernel reached it: transposes, alpha, beta.
fn features(row: &LogRow) -> [f32; FEATURES] {
    let transposed = |operand: &str| if row.kernel.contains(operand) { 1.0 } else { 0.0 };
    let bytes = 4.0 * (row.m * row.k + row.k * row.n + row.m * row.n);
    let order = ["nn", "nt", "tn", "tt"]
        .iter()
        .position(|layout| *layout == row.layout);
    [
        row.m as f32,
        row.n as f32,
        row.k as f32,
        row.blk_m as f32,
        row.blk_n as f32,
        row.blk_k as f32,
        row.arith_intensity as f32,
        bytes as f32,
        (2.0 * row.m * row.n * row.k) as f32,
        transposed("_nn_"),
        transposed("_nt_"),
        transposed("_tn_"),
        transposed("_tt_"),
        row.alpha as f32,
        row.beta as f32,
        order.map_or(-1.0, |order| order as f32),
        (row.m * row.n) as f32,
        (row.m * row.n / (128.0 * 128.0 * 46.0)).ceil() as f32,
    ]
}

fn scores(
    log: &[LogRow],
    task: &Task,
    kinds: &[u32],
    clipped: bool,
    options: &FitOptions,
) -> BTreeMap<String, Score> {
    let outputs = task.names.len();
    let mut values = task.values.clone();
    if clipped {
        (0..outputs).for_each(|output| clip(&mut values, output, outputs));
    }
    let of_task: Vec<u32> = task.rows.iter().map(|&row| kinds[row]).collect();
    let mut table = Table::new(FEATURES);
    task.rows.iter().for_each(|&row| table.push(&features(&log[row])));
    let mut pairs = vec![Vec::new(); outputs];
    // What grows with the operations is learned for one of them: trees cannot grow beyond what they have seen.
    let offset = |at: usize, output: usize| {
        let row = &log[task.rows[at]];
        let grows = matches!(task.names[output], "runtime" | "energy");
        if grows { (row.m * row.n * row.k).ln() } else { 0.0 }
    };
    for test in tests(&of_task, options.seed) {
        let train: Vec<usize> = (0..task.rows.len()).filter(|&at| !test[at]).collect();
        let targets: Vec<f32> = train
            .iter()
            .flat_map(|&at| (0..outputs).map(move |output| (at, output)))
            .map(|(at, output)| (values[at * outputs + output].ln() - offset(at, output)) as f32)
            .collect();
        let bags = numbers(train.iter().map(|&at| of_task[at].to_string()));
        let how = Forest {
            seed: options.seed,
            ..Forest::default()
        };
        let grown = forest(&table.select(&train), &targets, outputs, &bags, &how);
        for at in (0..task.rows.len()).filter(|&at| test[at]) {
            let predicted = grown.trees.sums(table.row(at));
            for (output, pairs) in pairs.iter_mut().enumerate() {
                pairs.push((
                    values[at * outputs + output],
                    (f64::from(predicted[output]) + offset(at, output)).exp(),
                ));
            }
        }
    }
    let scored = task.names.iter().zip(&pairs);
    scored
        .filter_map(|(name, pairs)| Some(((*name).to_owned(), Score::new(pairs)?)))
        .collect()
}

/// Rows to test on: a fifth at random where each is its own kind, else each fifth of the kinds in turn.
fn tests(kinds: &[u32], seed: u64) -> Vec<Vec<bool>> {
    let distinct = kinds.iter().collect::<std::collections::BTreeSet<_>>().len();
    if distinct == kinds.len() {
        let mut test = vec![false; kinds.len()];
        let share = (kinds.len() as f64 * TEST_SHARE) as usize;
        let drawn = Random::new(seed, 5 << 32).sample(kinds.len(), share);
        drawn.into_iter().for_each(|at| test[at] = true);
        return vec![test];
    }
    let last = kinds.iter().max().map_or(0, |&last| last as usize);
    let mut fold_of: Vec<usize> = (0..=last).map(|kind| kind % FOLDS).collect();
    Random::new(seed, 6 << 32).shuffle(&mut fold_of);
    let fold = |fold: usize| kinds.iter().map(|&kind| fold_of[kind as usize] == fold).collect();
    (0..FOLDS).map(fold).collect()
}

/// Moves what lies outside the 1 % and 99 % quantiles onto them, as the paper does.
fn clip(values: &mut [f64], output: usize, outputs: usize) {
    let mut sorted: Vec<f64> = values.iter().skip(output).step_by(outputs).copied().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let (low, high) = (at(0.01), at(0.99));
    for value in values.iter_mut().skip(output).step_by(outputs) {
        *value = value.clamp(low, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_kind_are_tested_together_and_every_kind_once() {
        let kinds: Vec<u32> = (0..200).map(|row| row / 4).collect();
        let folds = super::tests(&kinds, 7);
        assert_eq!(folds.len(), FOLDS);
        for at in 0..200 {
            assert_eq!(folds.iter().filter(|test| test[at]).count(), 1);
            assert!(folds.iter().all(|test| test[at] == test[at / 4 * 4]));
        }
        let alone: Vec<u32> = (0..200).collect();
        assert_eq!(
            super::tests(&alone, 7)[0].iter().filter(|test| **test).count(),
            40
        );
    }

    #[test]
    fn clipping_moves_the_outermost_hundredths_of_one_target_only() {
        let mut values: Vec<f64> = (0..1000).flat_map(|i| [f64::from(i), f64::from(i)]).collect();
        clip(&mut values, 0, 2);
        assert_eq!(
            (values[0], values[1], values[1998], values[1999]),
            (10.0, 0.0, 989.0, 999.0)
        );
    }
}
