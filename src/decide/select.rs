//! `select`: the configuration that is best for a product by time, energy or both; what choosing so loses; the table that
//! the kernels read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use dualgrain_perf::select::Regret;
use dualgrain_perf::{By, Dataset, FitOptions, HeldOut, Model, Prediction, select as choosing};
use serde::Serialize;

use crate::cli::arguments::{Aim, Common, Select};
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::decide::learning;
use crate::decide::predict::Row;
use crate::decide::request::{by, model, of_threads, product};

/// Products a text shows.
const SHOWN: usize = 10;

/// Parts that a set's shapes are dealt into to judge choices: each is chosen for by what 19 of 20 shapes teach. The model that
/// ships has learned from all; with five parts those that are judged would have learned from four fifths.
const FOLDS: usize = 20;

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
        return regret(options, common, terminal);
    }
    let model = model(&options.run)?;
    if let Some(path) = &options.table {
        return write_table(&model, options, path, terminal);
    }
    let (Some(m), Some(n), Some(k)) = (options.m, options.n, options.k) else {
        bail!("--m, --n and --k are needed, or --regret DATA, or --table FILE");
    };
    let product = product(&options.run, (m, n, k))?;
    let ranked = model.ranked(&options.run.kernel, &product, by(options.by))?;
    let ranked = of_threads(&model, ranked, common.threads)?;
    let choice = Choice {
        machine: &model.machine().name,
        by: name(options.by),
        m,
        n,
        k,
        group_size: product.group_size,
        best: Row::new(ranked.first().context("nothing to choose from")?),
        pareto: choosing::pareto(&ranked).iter().map(Row::new).collect(),
    };
    terminal.result(&choice, &text(&choice))
}

fn name(aim: Aim) -> &'static str {
    match aim {
        Aim::Time => "time",
        Aim::Energy => "energy",
        Aim::Edp => "energy times time",
    }
}

fn text(choice: &Choice<'_>) -> String {
    let header = ["kernel", "config", "output", "us", "W", "mJ", "nJ s", ""];
    let line = |row: &Row<'_>| {
        let Prediction {
            time_s,
            power_w,
            energy_j,
            ..
        } = row.prediction;
        let edp = energy_j.map(|energy| energy.value * time_s.value);
        let shown = |value: Option<f64>, scale: f64| {
            value.map_or("-".to_owned(), |value| format!("{:.3}", value * scale))
        };
        vec![
            row.kernel.to_owned(),
            row.config.to_owned(),
            row.output.to_owned(),
            shown(Some(time_s.value), 1e6),
            shown(power_w.map(|power| power.value), 1.0),
            shown(energy_j.map(|energy| energy.value), 1e3),
            shown(edp, 1e9),
            if row.prediction.extrapolated {
                "extrapolated"
            } else {
                ""
            }
            .to_owned(),
        ]
    };
    format!(
        "{}x{}x{} on {}, best by {}:\n{}\nnone is better in both time and energy than these:\n{}",
        choice.m,
        choice.n,
        choice.k,
        choice.machine,
        choice.by,
        table(&header, &[line(&choice.best)]),
        table(&header, &choice.pareto.iter().map(line).collect::<Vec<_>>())
    )
}

/// What choosing by held-out predictions loses, beside the hand-written cost function where there is one.
fn regret(options: &Select, common: &Common, terminal: &Terminal) -> Result<()> {
    let data = Dataset::read_all(&options.regret)?;
    let how = FitOptions {
        folds: FOLDS,
        seed: options.seed,
        ..learning::options(common)
    };
    let (kernel, by) = (&options.run.kernel, by(options.by));
    let held = learning::held_out(&data, &how, terminal)?;
    let all = learned(&data, &held, kernel, by)?;
    let mut regrets = choosing::exhaustive(&all);
    let summary = choosing::summary(&regrets).context("no product was searched")?;
    let mut words = format!(
        "choosing {kernel} by predicted {}, each product kept out of the fit that chose; against exhaustive search:\n  learned    {}",
        name(options.by),
        words(&summary)
    );
    let formula = analytic(&data, kernel, by)?;
    let table_choices = by_table(&data, kernel, by)?;
    words += &both("by formula", &choosing::exhaustive(&formula));
    words += &both("by table  ", &choosing::exhaustive(&table_choices));
    words += &format!(
        "against {} configurations and more:\n",
        choosing::LEAST_CANDIDATES
    );
    words += &both("learned   ", &all);
    words += &both("by formula", &formula);
    words += &both("by table  ", &table_choices);
    regrets.sort_by(|left, right| right.regret.total_cmp(&left.regret));
    let rows: Vec<Vec<String>> = regrets
        .iter()
        .take(SHOWN)
        .map(|r| {
            vec![
                format!("{}x{}x{} g{}", r.m, r.n, r.k, r.group_size),
                r.candidates.to_string(),
                r.chosen.clone(),
                r.best.clone(),
                format!("{:.1} %", 100.0 * r.regret),
            ]
        })
        .collect();
    words += &format!(
        "\n{}",
        table(&["product", "measured", "chosen", "best", "regret"], &rows)
    );
    terminal.result(&summary, &words)
}

fn words(summary: &choosing::RegretSummary) -> String {
    format!(
        "mean {:.2} %, worst {:.1} %, {} products\n",
        100.0 * summary.mean_regret,
        100.0 * summary.worst_regret,
        summary.shapes
    )
}

fn both(who: &str, regrets: &[Regret]) -> String {
    let summary = choosing::summary(regrets);
    summary.map_or(String::new(), |summary| format!("  {who} {}", words(&summary)))
}

/// Whether sizes are chosen for these kernels, and not by a library: the project's own on a card.
#[cfg(feature = "cuda")]
fn chosen_here(data: &Dataset, kernel: &str) -> bool {
    data.manifest.machine.kind == dualgrain_perf::MachineKind::Gpu && kernel.contains("w4a8")
}

#[cfg(feature = "cuda")]
fn learned(data: &Dataset, held: &[HeldOut], kernel: &str, by: By) -> Result<Vec<Regret>> {
    Ok(match chosen_here(data, kernel) {
        true => dualgrain_perf::selection::learned_regrets(data, held, kernel, by)?,
        false => choosing::regrets(data, held, kernel, by)?,
    })
}

#[cfg(not(feature = "cuda"))]
fn learned(data: &Dataset, held: &[HeldOut], kernel: &str, by: By) -> Result<Vec<Regret>> {
    Ok(choosing::regrets(data, held, kernel, by)?)
}

/// None where there is no hand-written cost function.
#[cfg(feature = "cuda")]
fn analytic(data: &Dataset, kernel: &str, by: By) -> Result<Vec<Regret>> {
    Ok(match chosen_here(data, kernel) {
        true => dualgrain_perf::selection::analytic_regrets(data, kernel, by)?,
        false => Vec::new(),
    })
}

/// What the table that the kernels read loses (its model has seen these products); none where there is none.
#[cfg(feature = "cuda")]
fn by_table(data: &Dataset, kernel: &str, by: By) -> Result<Vec<Regret>> {
    use dualgrain_cuda::SelectionTable;
    let device = dualgrain_perf::selection::device(&data.manifest.machine);
    Ok(match SelectionTable::of(&device) {
        Some(table) if chosen_here(data, kernel) => {
            dualgrain_perf::selection::table_regrets(data, table, by)?
        }
        _ => Vec::new(),
    })
}

#[cfg(not(feature = "cuda"))]
fn by_table(_: &Dataset, _: &str, _: By) -> Result<Vec<Regret>> {
    Ok(Vec::new())
}

#[cfg(not(feature = "cuda"))]
fn analytic(_: &Dataset, _: &str, _: By) -> Result<Vec<Regret>> {
    Ok(Vec::new())
}

#[cfg(feature = "cuda")]
fn write_table(model: &Model, options: &Select, path: &Path, terminal: &Terminal) -> Result<()> {
    use dualgrain_cuda::{Output, SelectionTable};
    let known = options.known.as_deref().map(known_choices).transpose()?;
    let known = known.unwrap_or_default();
    let text = dualgrain_perf::selection::table(model, by(options.by), Output::Bf16, &known)?;
    SelectionTable::parse(&text).context("the table that was made")?;
    std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    let lines = text.lines().count();
    let words = format!(
        "{}: {} lines for {}, {} choices known\n",
        path.display(),
        lines,
        model.machine().name,
        known.len()
    );
    terminal.result(&serde_json::json!({ "file": path, "lines": lines }), &words)
}

/// What `bench gemm --csv` chose and timed, groups of 128.
#[cfg(feature = "cuda")]
fn known_choices(path: &Path) -> Result<Vec<dualgrain_perf::selection::KnownChoice>> {
    let rows = crate::cli::columns::read(path, ["m", "n", "k", "group_size", "chosen", "config"])?;
    let chosen = rows
        .into_iter()
        .filter(|[.., group, chosen, _]| group == "128" && chosen == "true");
    let known = chosen.map(|[m, n, k, _, _, config]| {
        let side = |text: &str| {
            text.parse()
                .with_context(|| format!("{}: size {text:?}", path.display()))
        };
        Ok(dualgrain_perf::selection::KnownChoice {
            shape: dualgrain_format::GemmShape {
                m: side(&m)?,
                n: side(&n)?,
                k: side(&k)?,
            },
            config,
        })
    });
    known.collect()
}

#[cfg(not(feature = "cuda"))]
fn write_table(_: &Model, _: &Select, _: &Path, _: &Terminal) -> Result<()> {
    bail!("--table: this program was built without the feature `cuda`, whose kernels read the table")
}
