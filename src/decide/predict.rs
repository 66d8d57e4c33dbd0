//! `predict`: what a product costs in every configuration of a kernel, or in one.

use anyhow::{Result, bail, ensure};
use dualgrain_perf::{By, ConfigFacts, Interval, Layout, MachineKind, Model, Prediction, Product};
use serde::Serialize;

use crate::cli::arguments::{Common, Predict, Run};
use crate::cli::table::table;
use crate::cli::terminal::Terminal;

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
    pub fn new((facts, prediction): &(&'a ConfigFacts, Prediction)) -> Self {
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
        None => model.ranked(kernel, &product, By::Time)?,
    };
    let predictions = of_threads(&model, predictions, common.threads)?;
    let report = Report {
        machine: &model.machine().name,
        m: product.m,
        n: product.n,
        k: product.k,
        group_size: product.group_size,
        predictions: predictions.iter().map(Row::new).collect(),
    };
    terminal.result(&report, &text(&report))
}

/// The model that was asked for.
pub fn model(run: &Run) -> Result<Model> {
    Ok(match &run.model {
        Some(path) => Model::read(path)?,
        None => shipped(&run.device)?,
    })
}

/// The kind of CPU that `--device cpu` means.
const CPU: &str = "xeon-amx";

/// The model that comes with the program for a machine.
pub fn shipped(device: &str) -> Result<Model> {
    let machine = if device == "cpu" { CPU } else { device };
    Ok(Model::shipped(machine)?)
}

/// Those of a CPU's configurations that run on as many threads as `--threads` says; all where it says nothing.
pub fn of_threads<'a>(
    model: &Model,
    mut ranked: Vec<(&'a ConfigFacts, Prediction)>,
    threads: usize,
) -> Result<Vec<(&'a ConfigFacts, Prediction)>> {
    if threads > 0 && model.machine().kind == MachineKind::Cpu {
        ranked.retain(|(facts, _)| facts.threads == threads);
        ensure!(
            !ranked.is_empty(),
            "--threads {threads}: nothing of this was measured with so many threads on {}",
            model.machine().name
        );
    }
    Ok(ranked)
}

/// The product that was asked for.
pub fn product(run: &Run, (m, n, k): (usize, usize, usize)) -> Result<Product<'_>> {
    let layout = match run.layout.as_str() {
        "nn" => Layout::Nn,
        "nt" => Layout::Nt,
        "tn" => Layout::Tn,
        "tt" => Layout::Tt,
        other => bail!("--layout {other}: expected nn, nt, tn or tt"),
    };
    Ok(Product {
        group_size: run.group_size.parse()?,
        layout,
        alpha: run.alpha,
        beta: run.beta,
        output: run.output.as_deref().unwrap_or(""),
        ..Product::new(m, n, k)
    })
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
    let scaled = |interval: Option<Interval>, scale: f64| {
        interval.map_or("-".to_owned(), |i| format!("{:.3}", i.value * scale))
    };
    let rows = report.predictions.iter().take(SHOWN).map(|row| {
        let Prediction {
            time_s,
            power_w,
            energy_j,
            ops_per_s,
            ops_per_j,
            extrapolated,
        } = row.prediction;
        vec![
            row.kernel.to_owned(),
            row.config.to_owned(),
            row.output.to_owned(),
            format!("{:.2}", time_s.value * 1e6),
            format!("{:.2}..{:.2}", time_s.low * 1e6, time_s.high * 1e6),
            power_w.map_or("-".to_owned(), |power| format!("{:.0}", power.value)),
            scaled(energy_j, 1e3),
            scaled(Some(ops_per_s), 1e-12),
            scaled(ops_per_j, 1e-9),
            if extrapolated { "extrapolated" } else { "" }.to_owned(),
        ]
    });
    let mut text = format!(
        "{}x{}x{} on {}\n{}",
        report.m,
        report.n,
        report.k,
        report.machine,
        table(&header, &rows.collect::<Vec<_>>())
    );
    if report.predictions.len() > SHOWN {
        text += &format!(
            "and {} slower ones (--json has all)\n",
            report.predictions.len() - SHOWN
        );
    }
    text
}
