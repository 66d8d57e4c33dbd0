//! Predicted against measured values, on shapes that the model has not seen.

use std::collections::BTreeMap;

use crate::learn::{HeldOut, score};
use crate::predict::{Interval, Score};
use crate::report::findings::Findings;
use crate::report::plot::{Axis, Chart, Series, figure, side_by_side, subcaption};
use crate::report::section::Section;
use crate::report::statistics::{quantile, sorted};
use crate::report::targets::{TARGETS, Target};

const SIZE: (f64, f64) = (420.0, 330.0);
const SIZE_FLAT: (f64, f64) = (420.0, 240.0);

/// Bins of a decade of operations.
const BINS_A_DECADE: f64 = 2.0;
/// Rows that a bin needs to be drawn.
const LEAST_IN_BIN: usize = 5;

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
    let pair = |held_out: &HeldOut| {
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

/// Agreement by target.
pub(crate) fn scores(findings: &Findings<'_>) -> BTreeMap<String, Score> {
    let pair =
        |held_out: &'_ HeldOut| Some((findings.data?.rows.get(held_out.row_idx)?, held_out.prediction));
    let pairs: Vec<_> = findings.held_out.iter().filter_map(pair).collect();
    score(pairs.iter().map(|(row, prediction)| (*row, prediction)))
}

/// Percent that a prediction is too high.
fn relative(pair: &Pair) -> f64 {
    100.0 * (pair.predicted.value / pair.measured - 1.0)
}

const UNSEEN: &str = "Every row is predicted by a model that never saw a row of the same shape.";

/// One picture a target: predicted over measured.
pub(crate) fn agreement(findings: &Findings<'_>) -> Section {
    let scores = scores(findings);
    let pictures: Vec<_> = TARGETS
        .iter()
        .filter_map(|target| agreement_of(target, scores.get(target.key)?, &pairs(findings, target)))
        .collect();
    Section {
        anchor: "agreement",
        heading: "Predicted against measured",
        explanation: format!("{UNSEEN} The dashed line is perfect agreement; darker cells hold more rows."),
        body: drawn(findings, &pictures),
    }
}

fn agreement_of(target: &Target, score: &Score, pairs: &[Pair]) -> Option<String> {
    let both = || {
        pairs
            .iter()
            .flat_map(|pair| [pair.measured, pair.predicted.value])
    };
    let x = Axis::log(format!("measured {}", target.name), target.unit, both())?;
    let y = Axis::log(format!("predicted {}", target.name), target.unit, both())?;
    let (low, high) = (x.least(), x.most());
    let points = pairs.iter().map(|pair| (pair.measured, pair.predicted.value));
    let caption = format!("{}, {} rows", capital(target.name), pairs.len());
    let svg = Chart::new(format!("predicted over measured {}", target.name), SIZE, x, y)
        .density(Series(0), points)
        .rule((low, low), (high, high))
        .svg();
    Some(figure(&caption, &subcaption(&words(score)), &svg))
}

/// One picture a target: error over the size of the product.
pub(crate) fn by_size(findings: &Findings<'_>) -> Section {
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

/// The errors of products of about one size.
struct SizeBin {
    /// Operations in its middle.
    ops: f64,
    /// The errors that 5, 50 and 95 of a hundred lie below, in percent.
    quantiles: [f64; 3],
    num_rows: usize,
}

fn size_bins(pairs: &[Pair]) -> Vec<SizeBin> {
    let mut bins = BTreeMap::<i32, Vec<f64>>::new();
    for pair in pairs {
        let bin = (pair.ops.log10() * BINS_A_DECADE).floor() as i32;
        bins.entry(bin).or_default().push(relative(pair));
    }
    bins.retain(|_, errors| errors.len() >= LEAST_IN_BIN);
    let drawn = bins.into_iter().map(|(bin, errors)| {
        let errors = sorted(errors);
        SizeBin {
            ops: 10_f64.powf((f64::from(bin) + 0.5) / BINS_A_DECADE),
            quantiles: [0.05, 0.5, 0.95].map(|fraction| quantile(&errors, fraction)),
            num_rows: errors.len(),
        }
    });
    drawn.collect()
}

fn by_size_of(target: &Target, pairs: &[Pair]) -> Option<String> {
    let bins = size_bins(pairs);
    let x = Axis::log("operations of the product", "OP", bins.iter().map(|bin| bin.ops))?;
    let ends = bins.iter().flat_map(|bin| [bin.quantiles[0], bin.quantiles[2]]);
    let y = Axis::linear(format!("error of {}", target.name), "%", ends.chain([0.0]))?;
    let (first, last) = (x.least(), x.most());
    let band = bins
        .iter()
        .map(|bin| (bin.ops, bin.quantiles[0], bin.quantiles[2]));
    let band: Vec<_> = band.collect();
    let mut chart = Chart::new(
        format!("error of {} over operations", target.name),
        SIZE_FLAT,
        x,
        y,
    )
    .rule((first, 0.0), (last, 0.0))
    .band(Series(0), &band)
    .line(Series(0), bins.iter().map(|bin| (bin.ops, bin.quantiles[1])));
    for bin in &bins {
        let [low, middle, high] = bin.quantiles;
        let title = format!(
            "{} rows: median {middle:.1} %, nine of ten from {low:.1} to {high:.1} %",
            bin.num_rows
        );
        chart = chart.marker(Series(0), (bin.ops, middle), &title);
    }
    Some(figure(&capital(target.name), "", &chart.svg()))
}

fn words(score: &Score) -> String {
    let inside = score.coverage.map_or_else(String::new, |coverage| {
        format!(", {:.1} % inside their 90 % interval", 100.0 * coverage)
    });
    format!(
        "mean error {:.1} %, median {:.1} %, R² {:.4} ({:.4} of logarithms){inside}",
        score.mean_percent_error, score.median_percent_error, score.r2, score.r2_log
    )
}

fn drawn(findings: &Findings<'_>, pictures: &[String]) -> Result<String, String> {
    match (pictures.is_empty(), findings.data) {
        (false, _) => Ok(side_by_side(pictures)),
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
