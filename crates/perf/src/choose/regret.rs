//! The regret of a choice: how much more the chosen configuration takes than the best of those that were measured.

use std::collections::BTreeMap;

use dualgrain_format::GroupSize;
use serde::Serialize;

use crate::data::{Dataset, Row};
use crate::error::PerfError;
use crate::group_number;
use crate::learn::HeldOut;
use crate::predict::{Objective, Prediction, answers_to};

/// A product with fewer measured configurations was not searched.
pub const LEAST_CANDIDATES: usize = 8;

/// With so many, nearly all that make sense on a product were measured: its best is the best of an exhaustive search.
pub const EXHAUSTIVE_CANDIDATES: usize = 20;

/// What a choice loses on one product.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regret {
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Reduction.
    pub k: usize,
    /// Columns that share a group scale.
    #[serde(with = "group_number")]
    pub group_size: GroupSize,
    /// Configurations that were measured.
    pub candidates: usize,
    /// What was chosen.
    pub chosen: String,
    /// What was best.
    pub best: String,
    /// Cost of the chosen over the cost of the best, less 1.
    pub regret: f64,
}

/// Mean and worst of regrets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RegretSummary {
    /// Mean.
    pub mean_regret: f64,
    /// Largest.
    pub worst_regret: f64,
    /// Products.
    pub shapes: usize,
}

/// The regrets of products that were searched exhaustively; all where none was.
pub fn exhaustive(regrets: &[Regret]) -> Vec<Regret> {
    let searched = regrets
        .iter()
        .filter(|regret| regret.candidates >= EXHAUSTIVE_CANDIDATES);
    let searched: Vec<Regret> = searched.cloned().collect();
    if searched.is_empty() {
        regrets.to_vec()
    } else {
        searched
    }
}

/// Mean and worst; `None` without any.
pub fn summary(regrets: &[Regret]) -> Option<RegretSummary> {
    let worst = regrets
        .iter()
        .map(|regret| regret.regret)
        .max_by(f64::total_cmp)?;
    Some(RegretSummary {
        mean_regret: regrets.iter().map(|regret| regret.regret).sum::<f64>() / regrets.len() as f64,
        worst_regret: worst,
        shapes: regrets.len(),
    })
}

/// What choosing by held-out predictions loses on every product of `kernel` (one, or a type) that was searched.
///
/// # Errors
/// No product was searched.
pub fn regrets(
    data: &Dataset,
    held: &[HeldOut],
    kernel: &str,
    by: Objective,
) -> Result<Vec<Regret>, PerfError> {
    let predicted: BTreeMap<usize, &Prediction> =
        held.iter().map(|held| (held.row_idx, &held.prediction)).collect();
    regrets_of(data, kernel, by, |row_idx, _| predicted.get(&row_idx)?.cost(by))
}

/// As [`regrets`], by any cost of a row.
///
/// # Errors
/// As [`regrets`].
pub fn regrets_of(
    data: &Dataset,
    kernel: &str,
    by: Objective,
    cost: impl Fn(usize, &Row) -> Option<f64>,
) -> Result<Vec<Regret>, PerfError> {
    let products = rows_by_product(data, kernel);
    let regrets: Vec<Regret> = products
        .iter()
        .filter_map(|rows| regret(data, rows, by, &cost))
        .collect();
    if regrets.is_empty() {
        return Err(PerfError::TooLittle {
            what: format!("products of {kernel} with measured configurations"),
            expected: format!("at least one with {LEAST_CANDIDATES} configurations"),
            got: format!("{} products, none with so many", products.len()),
        });
    }
    Ok(regrets)
}

/// The places of a kernel's sound rows, product by product.
fn rows_by_product(data: &Dataset, kernel: &str) -> Vec<Vec<usize>> {
    let mut products: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (row_idx, row) in data.rows.iter().enumerate() {
        if row.is_sound() && answers_to(&row.kernel, kernel) {
            let blend = (row.alpha.to_bits(), row.beta.to_bits());
            let group_number = group_number::of(row.group_size);
            let key = (row.m, row.n, row.k, group_number, row.layout, &row.output, blend);
            products.entry(key).or_default().push(row_idx);
        }
    }
    products.into_values().collect()
}

pub(crate) fn regret(
    data: &Dataset,
    rows: &[usize],
    by: Objective,
    cost: &impl Fn(usize, &Row) -> Option<f64>,
) -> Option<Regret> {
    let judged = rows.iter().filter_map(|&row_idx| {
        let row = &data.rows[row_idx];
        Some((measured(row, by)?, cost(row_idx, row)?, row))
    });
    let judged: Vec<(f64, f64, &Row)> = judged.collect();
    if judged.len() < LEAST_CANDIDATES {
        return None;
    }
    let chosen = judged.iter().min_by(|left, right| left.1.total_cmp(&right.1))?;
    let best = judged.iter().min_by(|left, right| left.0.total_cmp(&right.0))?;
    Some(Regret {
        m: best.2.m,
        n: best.2.n,
        k: best.2.k,
        group_size: best.2.group_size,
        candidates: judged.len(),
        chosen: format!("{} {}", chosen.2.kernel, chosen.2.config),
        best: format!("{} {}", best.2.kernel, best.2.config),
        regret: chosen.0 / best.0 - 1.0,
    })
}

fn measured(row: &Row, by: Objective) -> Option<f64> {
    match by {
        Objective::Time => row.time_s,
        Objective::Energy => row.energy_j,
        Objective::Edp => Some(row.energy_j? * row.time_s?),
    }
}
