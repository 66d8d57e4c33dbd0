//! `predict`: what a product costs in every configuration of a kernel, or in one.

use anyhow::Result;
use dualgrain_perf::{Interval, KernelConfig, Objective, Prediction, group_number};
use serde::Serialize;

use crate::cli::arguments::{Common, Predict};
use crate::cli::table::{or_dash, table};
use crate::cli::terminal::Terminal;
use crate::decide::request::{model, name_other_cpu, of_threads, product};

/// Configurations a text shows.
const SHOWN: usize = 12;

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a str,
    m: usize,
    n: usize,
    k: usize,
    group_size: usize,
    predictions: Vec<Row<'a>>,
}

/// A configuration and what it is predicted to cost.
#[derive(Serialize)]
pub struct Row<'a> {
    pub kernel: &'a str,
    pub config: &'a str,
    pub output: &'a str,
    #[serde(flatten)]
    pub prediction: Prediction,
}

impl<'a> Row<'a> {
    pub fn new((facts, prediction): &(&'a KernelConfig, Prediction)) -> Self {
        Self {
            kernel: &facts.kernel,
            config: &facts.config,
            output: &facts.output,
            prediction: *prediction,
        }
    }
}

/// Predicts and prints.
pub fn run(options: &Predict, common: &Common, terminal: &Terminal) -> Result<()> {
    let model = model(&options.run)?;
    let product = product(&options.run, (options.m, options.n, options.k))?;
    let kernel = &options.run.kernel;
    let predictions = match &options.config {
        Some(config) => model.in_config(kernel, config, &product)?,
        None => model.ranked(kernel, &product, Objective::Time)?,
    };
    let predictions = of_threads(&model, predictions, common.threads)?;
    let report = Report {
        machine: &model.machine().name,
        m: product.m,
        n: product.n,
        k: product.k,
        group_size: group_number::of(product.group_size),
        predictions: predictions.iter().map(Row::new).collect(),
    };
    name_other_cpu(&model, terminal);
    terminal.result(&report, &text(&report))
}

fn text(report: &Report<'_>) -> String {
    let header = [
        "kernel",
        "config",
        "output",
        "us",
        "90 % within",
        "W",
        "mJ",
        "TOPS",
        "GOP/J",
        "",
    ];
    let rows: Vec<_> = report.predictions.iter().take(SHOWN).map(cells).collect();
    let mut text = format!(
        "{}x{}x{} on {}\n{}",
        report.m,
        report.n,
        report.k,
        report.machine,
        table(&header, &rows)
    );
    if report.predictions.len() > SHOWN {
        text += &format!(
            "and {} slower ones (--json has all)\n",
            report.predictions.len() - SHOWN
        );
    }
    text
}

fn cells(row: &Row<'_>) -> Vec<String> {
    let scaled = |interval: Option<Interval>, scale: f64| {
        or_dash(interval.map(|interval| format!("{:.3}", interval.value * scale)))
    };
    let p = &row.prediction;
    let micros = |time_s: f64| format!("{:.2}", time_s * 1e6);
    vec![
        row.kernel.to_owned(),
        row.config.to_owned(),
        row.output.to_owned(),
        micros(p.time_s.value),
        format!("{}..{}", micros(p.time_s.low), micros(p.time_s.high)),
        or_dash(p.power_w.map(|power| format!("{:.0}", power.value))),
        scaled(p.energy_j, 1e3),
        scaled(Some(p.ops_per_s), 1e-12),
        scaled(p.ops_per_j, 1e-9),
        if p.extrapolated { "extrapolated" } else { "" }.to_owned(),
    ]
}
