//! Predicted against measured, on shapes the model never saw.

use std::collections::BTreeMap;

use serde::Serialize;

use super::statistics::{median, quantile, sorted};
use super::{Findings, Section};
use crate::plot::{Axis, Chart, Series, figure, grid};
use crate::{Interval, Prediction, Row};

const SIZE: (f64, f64) = (420.0, 330.0);
const SIZE_FLAT: (f64, f64) = (420.0, 240.0);

/// Bins of a decade of operations.
const BINS_A_DECADE: f64 = 2.0;
/// Rows that a bin needs to be drawn.
const LEAST_IN_BIN: usize = 5;

/// A quantity that is measured and predicted.
struct Target {
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    measured: fn(&Row) -> Option<f64>,
    predicted: fn(&Prediction) -> Option<Interval>,
}

const TARGETS: [Target; 5] = [
    Target {
        key: "time",
        name: "time",
        unit: "s",
        measured: |row| row.time_s,
        predicted: |p| Some(p.time_s),
    },
    Target {
        key: "power",
        name: "power",
        unit: "W",
        measured: |row| row.power_w,
        predicted: |p| p.power_w,
    },
    Target {
        key: "energy",
        name: "energy",
        unit: "J",
        measured: |row| row.energy_j,
        predicted: |p| p.energy_j,
    },
    Target {
        key: "throughput",
        name: "throughput",
        unit: "OPS",
        measured: |row| Some(row.ops() / row.time_s?),
        predicted: |p| Some(p.ops_per_s),
    },
    Target {
        key: "throughput_per_watt",
        name: "throughput a watt",
        unit: "OPS/W",
        measured: |row| Some(row.ops() / row.energy_j?),
        predicted: |p| p.ops_per_j,
    },
];

/// Agreement of predictions and measurements of one target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Errors {
    /// Rows.
    pub rows: usize,
    /// Share of the variance explained.
    pub r2: f64,
    /// The same of the logarithms.
    pub r2_log: f64,
    /// Mean of |predicted / measured - 1|, percent.
    pub mean_percent_error: f64,
    /// Median of the same.
    pub median_percent_error: f64,
    /// Share of measurements inside their 90 % interval.
    pub coverage: f64,
}

/// One row of one target.
struct Pair {
    measured: f64,
    predicted: Interval,
    ops: f64,
}

fn pairs(findings: &Findings<'_>, target: &Target) -> Vec<Pair> {
    let Some(data) = findings.data else {
        return Vec::new();
    };
    let pair = |held_out: &super::HeldOut| {
        let row = data.rows.get(held_out.row_idx)?;
        let measured = (target.measured)(row).filter(|measured| *measured > 0.0)?;
        let predicted = (target.predicted)(&held_out.prediction)?;
        Some(Pair {
            measured,
            predicted,
            ops: row.ops(),
        })
    };
    findings.held_out.iter().filter_map(pair).collect()
}

/// Errors of every target that was measured.
pub(super) fn errors(findings: &Findings<'_>) -> BTreeMap<&'static str, Errors> {
    let errors = TARGETS
        .iter()
        .filter_map(|target| Some((target.key, errors_of(&pairs(findings, target))?)));
    errors.collect()
}

fn errors_of(pairs: &[Pair]) -> Option<Errors> {
    if pairs.is_empty() {
        return None;
    }
    let count = pairs.len() as f64;
    let percent = || pairs.iter().map(|pair| relative(pair).abs());
    let explained = |scale: fn(f64) -> f64| {
        let mean = pairs.iter().map(|pair| scale(pair.measured)).sum::<f64>() / count;
        let square = |value: f64| value * value;
        let total: f64 = pairs.iter().map(|pair| square(scale(pair.measured) - mean)).sum();
        let rest = pairs
            .iter()
            .map(|pair| square(scale(pair.measured) - scale(pair.predicted.value)));
        1.0 - rest.sum::<f64>() / total.max(f64::MIN_POSITIVE)
    };
    let inside = pairs.iter().filter(|pair| pair.predicted.holds(pair.measured));
    Some(Errors {
        rows: pairs.len(),
        r2: explained(|value| value),
        r2_log: explained(f64::ln),
        mean_percent_error: percent().sum::<f64>() / count,
        median_percent_error: median(percent()),
        coverage: inside.count() as f64 / count,
    })
}

/// Percent that a prediction is too high.
fn relative(pair: &Pair) -> f64 {
    100.0 * (pair.predicted.value / pair.measured - 1.0)
}

const UNSEEN: &str = "Every row is predicted by a model that never saw a row of the same shape.";

/// One picture a target: predicted over measured.
pub(super) fn agreement(findings: &Findings<'_>) -> Section {
    let pictures: Vec<_> = TARGETS
        .iter()
        .filter_map(|target| agreement_of(target, &pairs(findings, target)))
        .collect();
    Section {
        anchor: "agreement",
        heading: "Predicted against measured",
        explanation: format!("{UNSEEN} The dashed line is perfect agreement; darker cells hold more rows."),
        body: drawn(findings, &pictures),
    }
}

fn agreement_of(target: &Target, pairs: &[Pair]) -> Option<String> {
    let errors = errors_of(pairs)?;
    let both = || {
        pairs
            .iter()
            .flat_map(|pair| [pair.measured, pair.predicted.value])
    };
    let x = Axis::log(format!("measured {}", target.name), target.unit, both())?;
    let y = Axis::log(format!("predicted {}", target.name), target.unit, both())?;
    let (low, high) = (x.least(), x.most());
    let points = pairs.iter().map(|pair| (pair.measured, pair.predicted.value));
    let caption = format!(
        "{}: mean error {:.1} %, median {:.1} %, R² {:.4} ({:.4} of logarithms), {:.1} % inside their 90 % interval; {} rows",
        capital(target.name),
        errors.mean_percent_error,
        errors.median_percent_error,
        errors.r2,
        errors.r2_log,
        100.0 * errors.coverage,
        errors.rows
    );
    let svg = Chart::new(format!("predicted over measured {}", target.name), SIZE, x, y)
        .density(Series(0), points)
        .rule((low, low), (high, high))
        .svg();
    Some(figure(&caption, "", &svg))
}

/// One picture a target: error over the size of the product.
pub(super) fn by_size(findings: &Findings<'_>) -> Section {
    let pictures: Vec<_> = TARGETS
        .iter()
        .filter_map(|target| by_size_of(target, &pairs(findings, target)))
        .collect();
    Section {
        anchor: "error-by-size",
        heading: "Error by size",
        explanation: format!(
            "{UNSEEN} Line: the median; band: nine of ten rows of that size. Above zero the prediction is too high. Bins with fewer \
             than {LEAST_IN_BIN} rows are not drawn."
        ),
        body: drawn(findings, &pictures),
    }
}

fn by_size_of(target: &Target, pairs: &[Pair]) -> Option<String> {
    let mut bins = BTreeMap::<i32, Vec<f64>>::new();
    for pair in pairs {
        let bin = (pair.ops.log10() * BINS_A_DECADE).floor() as i32;
        bins.entry(bin).or_default().push(relative(pair));
    }
    bins.retain(|_, errors| errors.len() >= LEAST_IN_BIN);
    let bands: Vec<(f64, [f64; 3], usize)> = bins
        .into_iter()
        .map(|(bin, errors)| {
            let centre = 10_f64.powf((f64::from(bin) + 0.5) / BINS_A_DECADE);
            let errors = sorted(errors);
            (
                centre,
                [0.05, 0.5, 0.95].map(|share| quantile(&errors, share)),
                errors.len(),
            )
        })
        .collect();
    let x = Axis::log("operations of the product", "OP", bands.iter().map(|band| band.0))?;
    let ends = bands.iter().flat_map(|(_, [low, _, high], _)| [*low, *high]);
    let y = Axis::linear(format!("error of {}", target.name), "%", ends.chain([0.0]))?;
    let (first, last) = (x.least(), x.most());
    let band: Vec<_> = bands
        .iter()
        .map(|(x, [low, _, high], _)| (*x, *low, *high))
        .collect();
    let mut chart = Chart::new(
        format!("error of {} over operations", target.name),
        SIZE_FLAT,
        x,
        y,
    )
    .rule((first, 0.0), (last, 0.0))
    .band(Series(0), &band)
    .line(
        Series(0),
        bands.iter().map(|(x, [_, middle, _], _)| (*x, *middle)),
    );
    for (x, [low, middle, high], rows) in &bands {
        let title = format!("{rows} rows: median {middle:.1} %, nine of ten from {low:.1} to {high:.1} %");
        chart = chart.mark(Series(0), (*x, *middle), &title);
    }
    Some(figure(&capital(target.name), "", &chart.svg()))
}

fn drawn(findings: &Findings<'_>, pictures: &[String]) -> Result<String, String> {
    match (pictures.is_empty(), findings.data) {
        (false, _) => Ok(grid(pictures)),
        (true, None) => {
            Err("There are no measurements to compare with: name the folder of a measured set.".to_owned())
        }
        (true, Some(_)) => {
            Err("No row could be held out: the set has too few sound rows or shapes.".to_owned())
        }
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
