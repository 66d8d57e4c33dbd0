//! `fit`: learns a model from measurements and prints how good it is, on shapes it has not seen and as the paper does.

mod held_out_products;

use std::path::Path;

use anyhow::{Context, Result};
use dualgrain_perf::{Dataset, FitOptions, FitSummary, Model, Score, Scores, gpperf};

use crate::cli::arguments::{Common, Fit, Learner};
use crate::cli::output_file;
use crate::cli::table::{or_dash, table};
use crate::cli::terminal::Terminal;
use crate::cli::units::bytes;
use crate::decide::learning;

/// Features a text shows.
const SHOWN: usize = 8;

/// Fits and prints.
pub fn run(options: &Fit, common: &Common, terminal: &Terminal) -> Result<()> {
    let how = FitOptions {
        seed: options.seed,
        ..learning::options(common)
    };
    if let Some(path) = &options.paper_log {
        let judged = gpperf::judge(&gpperf::read(path)?, &how)?;
        return terminal.result(&judged.scores, &paper_text(&judged));
    }
    if let Some(out) = &options.out {
        output_file::check(out, output_file::FITTED, options.replacing.replace).context("--out")?;
    }
    let mut data = Dataset::read_all(&options.data)?;
    let held_out = options.hold_out_peers.as_deref();
    let held_out = held_out.map(held_out_products::read).transpose()?;
    let taken = held_out.as_ref().map(|products| products.take_from(&mut data));
    terminal.say(&format!("learning from {} rows", data.rows.len()));
    let model = fit(&data, options.learner, how)?;
    let mut words = text(model.fit_summary());
    if let Some(out) = &options.out {
        model.write(out)?;
        words += &written(out)?;
    }
    if let (Some(products), Some(taken)) = (&held_out, &taken) {
        words += &products.text(&model, taken)?;
    }
    terminal.result(&model.fit_summary().scores, &words)
}

fn fit(data: &Dataset, learner: Learner, how: FitOptions) -> Result<Model> {
    let learner = match learner {
        Learner::Forest => dualgrain_perf::Learner::Forest,
        Learner::Boost => dualgrain_perf::Learner::Boost,
        Learner::Best => return Ok(Model::fit_best(data, &how)?),
    };
    Ok(Model::fit_with(data, &FitOptions { learner, ..how })?)
}

fn written(out: &Path) -> Result<String> {
    let size = std::fs::metadata(out)
        .with_context(|| out.display().to_string())?
        .len();
    Ok(format!("\n{}: {}\n", out.display(), bytes(size)))
}

fn text(report: &FitSummary) -> String {
    let mut text = format!(
        "{} rows ({} with power) of {} shapes, learned by {}, seed {}\n{}",
        report.num_rows,
        report.num_power_rows,
        report.num_shapes,
        report.learner,
        report.seed,
        scores_text(&report.scores)
    );
    if let Some(error) = report.out_of_bag_error {
        text += &format!(
            "\nout of bag (by shape): mean error of runtime {:.2} %\n",
            100.0 * error
        );
    }
    for (target, importances) in &report.importances {
        let shown = importances.iter().take(SHOWN);
        let words: Vec<String> = shown
            .map(|i| format!("{} +{:.1} %", i.feature, 100.0 * i.permutation))
            .collect();
        text += &format!(
            "\nwhat {target} depends on (error when swapped): {}\n",
            words.join(", ")
        );
    }
    text
}

fn scores_text(scores: &Scores) -> String {
    let header = [
        "split",
        "target",
        "R2",
        "R2 of log",
        "MSE",
        "MAE",
        "mean error",
        "median error",
        "in 90 % interval",
    ];
    let mut rows = Vec::new();
    for (split, targets) in scores {
        for (target, score) in targets {
            rows.push(line(split, target, score));
        }
    }
    table(&header, &rows)
}

fn line(split: &str, target: &str, score: &Score) -> Vec<String> {
    vec![
        split.to_owned(),
        target.to_owned(),
        format!("{:.4}", score.r2),
        format!("{:.4}", score.r2_log),
        format!("{:.3e}", score.mse),
        format!("{:.3e}", score.mae),
        format!("{:.2} %", score.mean_percent_error),
        format!("{:.2} %", score.median_percent_error),
        or_dash(score.coverage.map(|share| format!("{:.1} %", 100.0 * share))),
    ]
}

fn paper_text(judged: &gpperf::Judgement) -> String {
    format!(
        "GPPerf's log: {} rows, {} with power, {} distinct kernel runs of {} shapes\n{}\n{}",
        judged.num_rows,
        judged.num_power_rows,
        judged.num_runs,
        judged.num_shapes,
        scores_text(&judged.scores),
        gpperf::NOTES
    )
}
