//! The regret of the ways to choose a GPU kernel's configuration: the model, the table, the hand-written cost function.

use std::collections::{BTreeMap, BTreeSet};

use dualgrain_cuda::{
    Analytic, Cost as _, GemmConfig, GemmProblem, GpuInfo, Output, SelectionTable, enumerate_all,
};
use dualgrain_format::{GemmShape, GroupSize};

use super::cost::{device, output_name};
use crate::choose::regret::{Regret, regrets_of};
use crate::data::{Dataset, Row};
use crate::error::PerfError;
use crate::group_number;
use crate::learn::HeldOut;
use crate::predict::Objective;

/// The problem and configuration of a row; `None` where the kernels have no such.
fn of_row(row: &Row, device: &GpuInfo) -> Option<(GemmProblem, GemmConfig)> {
    let problem = GemmProblem {
        shape: GemmShape {
            m: row.m,
            n: row.n,
            k: row.k,
        },
        group: GroupSize::ALL
            .into_iter()
            .find(|&group| group == row.group_size)?,
        output: Output::ALL
            .into_iter()
            .find(|&output| output_name(output) == row.output)?,
    };
    let config = enumerate_all(&problem, device)
        .into_iter()
        .find(|config| config.variant.kernel() == row.kernel && config.to_string() == row.config)?;
    Some((problem, config))
}

/// What the hand-written cost function loses on the products that [`crate::choose::regrets`] judges.
///
/// # Errors
/// No product was searched.
pub fn analytic_regrets(data: &Dataset, kernel: &str, by: Objective) -> Result<Vec<Regret>, PerfError> {
    let device = device(&data.manifest.machine);
    regrets_of(data, kernel, by, |_, row| {
        let (problem, config) = of_row(row, &device)?;
        Some(Analytic.time_s(&problem, &config, &device))
    })
}

/// What choosing by held-out predictions loses among the sizes that the kernels have: one that was measured and has been
/// taken out since can no longer be chosen.
///
/// # Errors
/// No product was searched.
pub fn learned_regrets(
    data: &Dataset,
    held: &[HeldOut],
    kernel: &str,
    by: Objective,
) -> Result<Vec<Regret>, PerfError> {
    let device = device(&data.manifest.machine);
    let predicted: BTreeMap<usize, &HeldOut> = held.iter().map(|held| (held.row_idx, held)).collect();
    regrets_of(data, kernel, by, |row_idx, row| {
        of_row(row, &device)?;
        predicted.get(&row_idx)?.prediction.cost(by)
    })
}

/// What a table's choice loses, where it was measured, on the products that [`crate::choose::regrets`] judges; a product
/// whose choice was not measured is left out. The table was made of a model that has seen these products: this says what
/// its regions cost, not what choosing by prediction does.
///
/// # Errors
/// No product was searched.
pub fn table_regrets(
    data: &Dataset,
    table: &SelectionTable,
    by: Objective,
) -> Result<Vec<Regret>, PerfError> {
    let device = device(&data.manifest.machine);
    let key = |row: &Row, config: &str| {
        let sides = (row.m, row.n, row.k, group_number::of(row.group_size));
        (sides, row.output.clone(), config.to_owned())
    };
    let sound = data.rows.iter().filter(|row| row.is_sound());
    let measured: BTreeSet<_> = sound.map(|row| key(row, &row.config)).collect();
    regrets_of(data, "w4a8", by, |_, row| {
        let (problem, config) = of_row(row, &device)?;
        let chosen = table.choose(&problem, &device)?;
        let is_known = measured.contains(&key(row, &chosen.to_string()));
        is_known.then_some(if chosen == config { 0.0 } else { 1.0 })
    })
}
