//! What a configuration takes of a multiprocessor, and how operands lie, against throughput.

use std::collections::BTreeMap;

use super::statistics::{quantile, sorted};
use super::{Section, kernel_series};
use crate::plot::{Axis, Chart, Series, figure, grid, legend};
use crate::{Layout, Row};

const SIZE: (f64, f64) = (420.0, 300.0);
/// Steps along a resource in which a median is drawn.
const STEPS: usize = 12;
/// Rows that a step needs.
const LEAST_IN_STEP: usize = 8;

/// Occupancy and shared memory over throughput, every row a dot.
pub(super) fn section(rows: &[&Row]) -> Section {
    let pictures: Vec<_> = [
        over(
            rows,
            "Occupancy",
            "share of a multiprocessor's threads in use",
            "%",
            |row| (row.occupancy > 0.0).then_some(100.0 * row.occupancy),
        ),
        over(rows, "Shared memory", "shared memory of a block", "B", |row| {
            (row.shared_bytes > 0).then_some(row.shared_bytes as f64)
        }),
        over(rows, "Registers", "registers of a thread", "", |row| {
            (row.registers > 0).then_some(row.registers as f64)
        }),
        over(rows, "Waves", "rounds of blocks", "", |row| {
            (row.waves > 0.0).then_some(row.waves)
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    Section {
        anchor: "resources",
        heading: "Occupancy and shared memory against throughput",
        explanation: "Every sound row of a kernel that says what it takes; dashed: the median over all of them.".to_owned(),
        body: match pictures.is_empty() {
            false => Ok(legend(&shown_kernels(rows)) + &grid(&pictures)),
            true => Err("No kernel of this set says what it takes of a multiprocessor (CPU kernels and libraries do not).".to_owned()),
        },
    }
}

fn shown_kernels(rows: &[&Row]) -> Vec<(Series, String)> {
    let telling: Vec<&Row> = rows.iter().copied().filter(|row| row.occupancy > 0.0).collect();
    let names = kernel_series(&telling);
    kernel_series(rows)
        .into_iter()
        .filter(|(_, name)| names.iter().any(|(_, other)| other == name))
        .collect()
}

fn over(
    rows: &[&Row],
    caption: &str,
    title: &str,
    unit: &'static str,
    of: fn(&Row) -> Option<f64>,
) -> Option<String> {
    let point = |row: &&Row| Some((of(row)?, row.ops() / row.time_s?));
    let points: Vec<_> = rows.iter().filter_map(point).collect();
    let x = match unit {
        "%" => Axis::between(title, unit, 0.0, 100.0),
        _ => Axis::log(title, unit, points.iter().map(|point| point.0))?,
    };
    let y = Axis::log("throughput", "OPS", points.iter().map(|point| point.1))?;
    let steps = medians(&x, &points);
    let mut chart = Chart::new(format!("throughput over {title}"), SIZE, x, y);
    for (series, kernel) in kernel_series(rows) {
        let those = rows.iter().filter(|row| row.kernel == kernel).filter_map(point);
        chart = chart.dots(series, those);
    }
    chart = steps
        .windows(2)
        .fold(chart, |chart, pair| chart.rule(pair[0], pair[1]));
    Some(figure(caption, "", &chart.svg()))
}

/// Medians of the upper coordinate in equal steps of the axis.
fn medians(axis: &Axis, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut steps = BTreeMap::<usize, (Vec<f64>, Vec<f64>)>::new();
    for (x, y) in points {
        let step = ((axis.place(*x) * STEPS as f64) as usize).min(STEPS - 1);
        let (across, up) = steps.entry(step).or_default();
        across.push(*x);
        up.push(*y);
    }
    steps
        .into_values()
        .filter(|(across, _)| across.len() >= LEAST_IN_STEP)
        .map(|(across, up)| (quantile(&sorted(across), 0.5), quantile(&sorted(up), 0.5)))
        .collect()
}

/// How operands lie: each product against itself in the best layout.
pub(super) fn layouts(rows: &[&Row]) -> Section {
    let mut products = BTreeMap::<(String, String), Vec<&Row>>::new();
    for row in rows {
        let product = format!(
            "{} {} {} {} {} {} {}",
            row.config, row.m, row.n, row.k, row.alpha, row.beta, row.output
        );
        products
            .entry((row.kernel.clone(), product))
            .or_default()
            .push(row);
    }
    products.retain(|_, rows| {
        let first = rows[0].layout;
        rows.iter().any(|row| row.layout != first)
    });
    Section {
        anchor: "layouts",
        heading: "Layout of the operands (coalescing) against throughput",
        explanation: "Products measured in more than one layout, each against its own best: 100 % is the best layout. Boxes: half of the products, thin: \
                      nine of ten, mark: the median. The first letter is A's storage, the second B's; N as the paper writes it, T transposed."
            .to_owned(),
        body: drawn_layouts(&products)
            .ok_or_else(|| "No product was measured in more than one layout of its operands.".to_owned()),
    }
}

fn drawn_layouts(products: &BTreeMap<(String, String), Vec<&Row>>) -> Option<String> {
    let mut shares = BTreeMap::<&str, BTreeMap<Layout, Vec<f64>>>::new();
    for ((kernel, _), rows) in products {
        let best = rows
            .iter()
            .filter_map(|row| row.time_s)
            .fold(f64::INFINITY, f64::min);
        for row in rows {
            let of_kernel = shares.entry(kernel).or_default().entry(row.layout).or_default();
            of_kernel.extend(row.time_s.map(|time| 100.0 * best / time));
        }
    }
    let pictures: Vec<_> = shares
        .iter()
        .enumerate()
        .map(|(index, (kernel, layouts))| boxes(Series(index), kernel, layouts))
        .collect();
    (!pictures.is_empty()).then(|| grid(&pictures))
}

fn boxes(series: Series, kernel: &str, layouts: &BTreeMap<Layout, Vec<f64>>) -> String {
    let names: Vec<_> = layouts
        .keys()
        .enumerate()
        .map(|(place, layout)| (place as f64 + 0.5, format!("{layout:?}").to_uppercase()))
        .collect();
    let x = Axis::between("layout of A and B", "", 0.0, names.len() as f64);
    let y = Axis::between("throughput by that of the best layout", "%", 0.0, 100.0);
    let mut chart = Chart::new(format!("throughput of {kernel} by layout"), SIZE, x, y);
    for ((place, name), values) in names.iter().zip(layouts.values()) {
        let values = sorted(values.iter().copied());
        let [low, first, middle, third, high] =
            [0.05, 0.25, 0.5, 0.75, 0.95].map(|share| quantile(&values, share));
        let title = format!(
            "{name}: median {middle:.1} % of the best, half from {first:.1} to {third:.1}, nine of ten from {low:.1} to {high:.1}; {} products",
            values.len()
        );
        chart = chart
            .span(series, *place, (low, high), 4.0, &title)
            .span(series, *place, (first, third), 34.0, &title)
            .mark(series, (*place, middle), &title);
    }
    figure(kernel, "", &chart.svg_named(&names))
}
