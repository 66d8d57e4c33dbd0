//! What choosing by prediction loses.

use serde::Serialize;

use crate::choose::{LEAST_CANDIDATES, Regret, RegretSummary, summary};
use crate::report::plot::{Axis, Chart, Series, legend, wide};
use crate::report::section::Section;

const SIZE: (f64, f64) = (860.0, 320.0);
/// Products at the end of a curve that say what they are when pointed at.
const NAMED: usize = 5;

/// What choosing among some kernels by some goal lost, product by product.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What was to be least: `time`, `energy`.
    pub by: &'static str,
    /// What competed: a kernel or a type, `w4a8`.
    pub kernel: String,
    /// The losses.
    pub regrets: Vec<Regret>,
}

/// The same in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChoiceSummary {
    /// What was to be least.
    pub by: &'static str,
    /// What competed.
    pub kernel: String,
    /// Mean, worst, products.
    #[serde(flatten)]
    pub regret: RegretSummary,
}

/// Figures of every choice that was judged.
pub(crate) fn summaries(choices: &[Choice]) -> Vec<ChoiceSummary> {
    let summaries = choices.iter().filter_map(|choice| {
        Some(ChoiceSummary {
            by: choice.by,
            kernel: choice.kernel.clone(),
            regret: summary(&choice.regrets)?,
        })
    });
    summaries.collect()
}

/// The curve: which share of the products lost at most how much.
pub(crate) fn section(choices: &[Choice]) -> Section {
    Section {
        anchor: "regret",
        heading: "What choosing by prediction loses",
        explanation: "On every product a model that never saw its shape chooses among the configurations that were measured; regret is how much more \
                      the chosen one takes than the best of them. Products are sorted by it; the last ones say what they are when pointed at."
            .to_owned(),
        body: drawn(choices).ok_or_else(|| {
            format!("No product was measured in {LEAST_CANDIDATES} configurations or more and held out, so there was nothing to choose.")
        }),
    }
}

fn drawn(choices: &[Choice]) -> Option<String> {
    let all = || choices.iter().flat_map(|choice| &choice.regrets);
    all().next()?;
    let x = Axis::between("share of products", "%", 0.0, 100.0);
    let y = Axis::linear("regret", "%", all().map(percent).chain([0.0, 1.0]))?;
    let mut chart = Chart::new("regret over the share of products", SIZE, x, y);
    let mut names = Vec::new();
    for (index, choice) in choices.iter().enumerate() {
        let Some(summary) = summary(&choice.regrets) else {
            continue;
        };
        chart = curve(chart, Series(index), &choice.regrets);
        names.push((
            Series(index),
            format!(
                "{} by {}: mean {:.2} %, worst {:.1} %, {} products",
                choice.kernel,
                choice.by,
                100.0 * summary.mean_regret,
                100.0 * summary.worst_regret,
                summary.shapes
            ),
        ));
    }
    Some(wide(
        "Regret over the share of products",
        &legend(&names),
        &chart.svg(),
    ))
}

fn curve(mut chart: Chart, series: Series, regrets: &[Regret]) -> Chart {
    let mut sorted: Vec<&Regret> = regrets.iter().collect();
    sorted.sort_by(|a, b| a.regret.total_cmp(&b.regret));
    let share = |place: usize| 100.0 * (place + 1) as f64 / sorted.len() as f64;
    let points = sorted
        .iter()
        .enumerate()
        .map(|(place, r)| (share(place), percent(r)));
    chart = chart.line(series, points);
    for (place, regret) in sorted.iter().enumerate().skip(sorted.len().saturating_sub(NAMED)) {
        let title = format!(
            "{} x {} x {}: {} was chosen, {:.1} % more than {}, the best of {} configurations",
            regret.m,
            regret.n,
            regret.k,
            regret.chosen,
            percent(regret),
            regret.best,
            regret.candidates
        );
        chart = chart.marker(series, (share(place), percent(regret)), &title);
    }
    chart
}

fn percent(regret: &Regret) -> f64 {
    100.0 * regret.regret
}
