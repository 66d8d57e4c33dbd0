//! `select --regret DATA`: what choosing by predictions loses against the best of what was measured.

use anyhow::{Context, Result};
use dualgrain_perf::choose::{self as choosing, Regret};
use dualgrain_perf::{Dataset, FitOptions, Objective, group_number};

use crate::cli::arguments::{Common, Select};
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::decide::learning;
use crate::decide::request::{by, by_name};

/// Products a text shows.
const SHOWN: usize = 10;

/// Judges choices, each product kept out of the fit that chose.
pub fn run(options: &Select, common: &Common, terminal: &Terminal) -> Result<()> {
    let data = Dataset::read_all(&options.regret)?;
    let how = FitOptions {
        seed: options.seed,
        ..learning::choice_options(common)
    };
    let (kernel, by) = (&options.run.kernel, by(options.by));
    let held = learning::held_out(&data, &how, terminal)?;
    let choosers = [
        ("learned   ", learning::regrets(&data, &held, kernel, by)?),
        ("by formula", analytic(&data, kernel, by)?),
        ("by table  ", by_table(&data, kernel, by)?),
    ];
    let mut searched = choosing::exhaustive(&choosers[0].1);
    let summary = choosing::summary(&searched).context("no product was searched")?;
    let mut words = format!(
        "choosing {kernel} by predicted {}, each product kept out of the fit that chose; against exhaustive search:\n",
        by_name(options.by)
    );
    for (who, regrets) in &choosers {
        words += &line(who, &choosing::exhaustive(regrets));
    }
    words += &format!(
        "against {} configurations and more:\n",
        choosing::LEAST_CANDIDATES
    );
    for (who, regrets) in &choosers {
        words += &line(who, regrets);
    }
    searched.sort_by(|left, right| right.regret.total_cmp(&left.regret));
    words += &format!("\n{}", worst(&searched));
    terminal.result(&summary, &words)
}

/// What one way of choosing loses; nothing where it chose nothing.
fn line(who: &str, regrets: &[Regret]) -> String {
    choosing::summary(regrets).map_or(String::new(), |summary| {
        format!(
            "  {who} mean {:.2} %, worst {:.1} %, {} products\n",
            100.0 * summary.mean_regret,
            100.0 * summary.worst_regret,
            summary.shapes
        )
    })
}

/// The first of sorted regrets.
fn worst(regrets: &[Regret]) -> String {
    let shown = regrets.iter().take(SHOWN);
    let rows: Vec<Vec<String>> = shown
        .map(|r| {
            vec![
                format!("{}x{}x{} g{}", r.m, r.n, r.k, group_number::of(r.group_size)),
                r.candidates.to_string(),
                r.chosen.clone(),
                r.best.clone(),
                format!("{:.1} %", 100.0 * r.regret),
            ]
        })
        .collect();
    table(&["product", "measured", "chosen", "best", "regret"], &rows)
}

/// None where there is no hand-written cost function.
#[cfg(feature = "cuda")]
fn analytic(data: &Dataset, kernel: &str, by: Objective) -> Result<Vec<Regret>> {
    Ok(match learning::chosen_here(data, kernel) {
        true => dualgrain_perf::choose::gpu::analytic_regrets(data, kernel, by)?,
        false => Vec::new(),
    })
}

/// What the table that the kernels read loses (its model has seen these products); none where there is none.
#[cfg(feature = "cuda")]
fn by_table(data: &Dataset, kernel: &str, by: Objective) -> Result<Vec<Regret>> {
    use dualgrain_cuda::SelectionTable;
    let device = dualgrain_perf::choose::gpu::device(&data.manifest.machine);
    Ok(match SelectionTable::of(&device) {
        Some(table) if learning::chosen_here(data, kernel) => {
            dualgrain_perf::choose::gpu::table_regrets(data, table, by)?
        }
        _ => Vec::new(),
    })
}

#[cfg(not(feature = "cuda"))]
fn by_table(_: &Dataset, _: &str, _: Objective) -> Result<Vec<Regret>> {
    Ok(Vec::new())
}

#[cfg(not(feature = "cuda"))]
fn analytic(_: &Dataset, _: &str, _: Objective) -> Result<Vec<Regret>> {
    Ok(Vec::new())
}
