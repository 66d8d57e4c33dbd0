//! `select`: the configuration that is best for a product by time, energy or both; what choosing so loses; the table that
//! the kernels read.

mod kernel_table;
mod regret;

use anyhow::{Context, Result, bail};
use dualgrain_perf::choose::pareto;
use dualgrain_perf::group_number;
use serde::Serialize;

use crate::cli::arguments::{Common, Select};
use crate::cli::table::{or_dash, table};
use crate::cli::terminal::Terminal;
use crate::decide::predict::Row;
use crate::decide::request::{by, by_name, model, name_other_cpu, of_threads, product};

#[derive(Serialize)]
struct Choice<'a> {
    machine: &'a str,
    by: &'static str,
    m: usize,
    n: usize,
    k: usize,
    group_size: usize,
    best: Row<'a>,
    pareto: Vec<Row<'a>>,
}

/// Chooses, judges choices, or writes the table.
pub fn run(options: &Select, common: &Common, terminal: &Terminal) -> Result<()> {
    if !options.regret.is_empty() {
        return regret::run(options, common, terminal);
    }
    let model = model(&options.run)?;
    if let Some(path) = &options.table {
        return kernel_table::write(&model, options, path, terminal);
    }
    let (Some(m), Some(n), Some(k)) = (options.m, options.n, options.k) else {
        bail!("--m, --n and --k are needed, or --regret DATA, or --table FILE");
    };
    let product = product(&options.run, (m, n, k))?;
    let ranked = model.ranked(&options.run.kernel, &product, by(options.by))?;
    let ranked = of_threads(&model, ranked, common.threads)?;
    let choice = Choice {
        machine: &model.machine().name,
        by: by_name(options.by),
        m,
        n,
        k,
        group_size: group_number::of(product.group_size),
        best: Row::new(ranked.first().context("nothing to choose from")?),
        pareto: pareto(&ranked).iter().map(Row::new).collect(),
    };
    name_other_cpu(&model, terminal);
    terminal.result(&choice, &text(&choice))
}

fn text(choice: &Choice<'_>) -> String {
    let header = ["kernel", "config", "output", "us", "W", "mJ", "nJ s", ""];
    let pareto: Vec<_> = choice.pareto.iter().map(cells).collect();
    format!(
        "{}x{}x{} on {}, best by {}:\n{}\nnone is better in both time and energy than these:\n{}",
        choice.m,
        choice.n,
        choice.k,
        choice.machine,
        choice.by,
        table(&header, &[cells(&choice.best)]),
        table(&header, &pareto)
    )
}

fn cells(row: &Row<'_>) -> Vec<String> {
    let p = &row.prediction;
    let time_s = p.time_s.value;
    let energy_j = p.energy_j.map(|energy| energy.value);
    let shown = |value: Option<f64>, scale: f64| or_dash(value.map(|value| format!("{:.3}", value * scale)));
    let extrapolated = if p.extrapolated { "extrapolated" } else { "" };
    vec![
        row.kernel.to_owned(),
        row.config.to_owned(),
        row.output.to_owned(),
        shown(Some(time_s), 1e6),
        shown(p.power_w.map(|power| power.value), 1.0),
        shown(energy_j, 1e3),
        shown(energy_j.map(|energy_j| energy_j * time_s), 1e9),
        extrapolated.to_owned(),
    ]
}
