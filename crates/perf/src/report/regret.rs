//! What is lost by choosing by prediction.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Section;
use super::statistics::{quantile, sorted};
use crate::plot::{Axis, Chart, Series, legend, wide};
use crate::{By, Dataset, HeldOut, Operands, Row, Unit};

const SIZE: (f64, f64) = (860.0, 320.0);

/// What one product lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Regret {
    /// What was to be least: `time`, `energy`, `edp`.
    pub by: String,
    /// What competed: `w4a8`, `bf16`.
    pub kernel: String,
    /// M, N, K.
    pub shape: [usize; 3],
    /// Configurations that were measured.
    pub configs: usize,
    /// The chosen configuration's measured cost over the best measured one's, less 1.
    pub regret: f64,
}

/// What choosing by `held_out` would have lost on each product that was measured in two configurations or more of kernels that
/// multiply the same types, for the same output. Rows without energy do not compete where energy counts.
pub fn regrets(data: &Dataset, held_out: &[HeldOut], by: By) -> Vec<Regret> {
    let mut products = BTreeMap::<(String, String), Vec<Candidate>>::new();
    for held_out in held_out {
        let Some(row) = data.rows.get(held_out.row_idx) else {
            continue;
        };
        if let (Some(kind), Some(measured), Some(predicted)) =
            (kind(row), measured(row, by), held_out.prediction.cost(by))
        {
            let product = format!(
                "{} {} {} {} {:?} {} {} {}",
                row.m, row.n, row.k, row.group_size, row.layout, row.alpha, row.beta, row.output
            );
            let shape = [row.m, row.n, row.k];
            let candidate = Candidate {
                shape,
                measured,
                predicted,
            };
            products.entry((kind, product)).or_default().push(candidate);
        }
    }
    let compared = products.iter().filter(|(_, candidates)| candidates.len() > 1);
    compared
        .filter_map(|((kind, _), candidates)| lost(kind, by, candidates))
        .collect()
}

/// One configuration of a product.
struct Candidate {
    shape: [usize; 3],
    measured: f64,
    predicted: f64,
}

fn lost(kind: &str, by: By, candidates: &[Candidate]) -> Option<Regret> {
    let chosen = candidates
        .iter()
        .min_by(|a, b| a.predicted.total_cmp(&b.predicted))?;
    let best = candidates
        .iter()
        .min_by(|a, b| a.measured.total_cmp(&b.measured))?;
    Some(Regret {
        by: match by {
            By::Time => "time",
            By::Energy => "energy",
            By::Edp => "energy x time",
        }
        .to_owned(),
        kernel: kind.to_owned(),
        shape: chosen.shape,
        configs: candidates.len(),
        regret: chosen.measured / best.measured - 1.0,
    })
}

fn measured(row: &Row, by: By) -> Option<f64> {
    match by {
        By::Time => row.time_s,
        By::Energy => row.energy_j,
        By::Edp => Some(row.energy_j? * row.time_s?),
    }
}

/// What a kernel multiplies: kernels of a kind compete.
fn kind(row: &Row) -> Option<String> {
    let operands = Operands::of_kernel(&row.kernel).ok()?;
    let letter = match operands.unit {
        Unit::Int8 => "int",
        Unit::Half | Unit::Float => "float",
    };
    Some(match operands.a_bits == operands.b_bits {
        true => format!("{letter}{}", operands.a_bits),
        false => format!("w{}a{}", operands.b_bits, operands.a_bits),
    })
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegretSummary {
    /// Products.
    pub products: usize,
    /// Mean, percent.
    pub mean_percent: f64,
    /// Median, percent.
    pub median_percent: f64,
    /// The worst, percent.
    pub worst_percent: f64,
}

impl RegretSummary {
    /// Of all regrets; `None` of none.
    pub fn new(regrets: &[Regret]) -> Option<Self> {
        let sorted = sorted(regrets.iter().map(|regret| 100.0 * regret.regret));
        let worst = sorted.last()?;
        Some(Self {
            products: sorted.len(),
            mean_percent: sorted.iter().sum::<f64>() / sorted.len() as f64,
            median_percent: quantile(&sorted, 0.5),
            worst_percent: *worst,
        })
    }
}

/// The curve: which share of the products lost at most how much.
pub(super) fn section(regrets: &[Regret]) -> Section {
    Section {
        anchor: "regret",
        heading: "What choosing by prediction loses",
        explanation: "For each shape the model never saw it chooses among the configurations that were measured; regret is how much more \
                      the chosen one takes than the best. Shares of products lie at the right of the curve."
            .to_owned(),
        body: drawn(regrets).ok_or_else(|| {
            "No shape that was held out was measured in more than one configuration, so there was nothing to choose.".to_owned()
        }),
    }
}

fn drawn(regrets: &[Regret]) -> Option<String> {
    let mut kinds: Vec<(&str, &str)> = regrets
        .iter()
        .map(|regret| (regret.kernel.as_str(), regret.by.as_str()))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let percent = |regret: &Regret| 100.0 * regret.regret;
    let x = Axis::between("share of products", "%", 0.0, 100.0);
    let y = Axis::linear("regret", "%", regrets.iter().map(percent).chain([0.0, 1.0]))?;
    let mut chart = Chart::new("regret over the share of products", SIZE, x, y);
    let mut names = Vec::new();
    regrets.first()?;
    for (index, (kernel, by)) in kinds.into_iter().enumerate() {
        let mut those: Vec<&Regret> = regrets
            .iter()
            .filter(|regret| regret.kernel == kernel && regret.by == by)
            .collect();
        those.sort_by(|a, b| a.regret.total_cmp(&b.regret));
        let series = Series(index);
        let share = |place: usize| 100.0 * (place + 1) as f64 / those.len() as f64;
        let line = those
            .iter()
            .enumerate()
            .map(|(place, r)| (share(place), percent(r)));
        chart = chart.line(series, line);
        let worst = those.len().saturating_sub(5);
        for (place, regret) in those.iter().enumerate().skip(worst) {
            let [m, n, k] = regret.shape;
            let title = format!(
                "{m} x {n} x {k}: {:.1} % more than the best of {} configurations",
                percent(regret),
                regret.configs
            );
            chart = chart.mark(series, (share(place), percent(regret)), &title);
        }
        let mean = those.iter().map(|regret| percent(regret)).sum::<f64>() / those.len() as f64;
        let most = those.last().map_or(0.0, |regret| percent(regret));
        names.push((
            series,
            format!(
                "{kernel} by {by}: mean {mean:.2} %, worst {most:.1} %, {} products",
                those.len()
            ),
        ));
    }
    Some(wide(
        "Regret over the share of products",
        &legend(&names),
        &chart.svg(),
    ))
}
