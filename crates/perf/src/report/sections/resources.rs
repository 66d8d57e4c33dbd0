//! Throughput by what a configuration takes of a multiprocessor: occupancy, shared memory, registers.

use std::collections::BTreeMap;

use crate::data::Row;
use crate::group_number;
use crate::report::plot::{Axis, Chart, Series, figure, legend, quantity, side_by_side};
use crate::report::section::{Section, kernel_series};
use crate::report::statistics::{quantile, sorted};

const SIZE: (f64, f64) = (420.0, 300.0);
/// Steps along a resource in which a median is drawn.
const STEPS: usize = 12;
/// Rows that a step needs.
const LEAST_IN_STEP: usize = 8;

/// A resource of a configuration.
struct Resource {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    of: fn(&Row) -> Option<f64>,
}

const RESOURCES: [Resource; 4] = [
    Resource {
        name: "Occupancy",
        title: "share of a multiprocessor's threads in use",
        unit: "%",
        of: |row| (row.occupancy > 0.0).then_some(100.0 * row.occupancy),
    },
    Resource {
        name: "Shared memory",
        title: "shared memory of a block",
        unit: "B",
        of: |row| (row.shared_bytes > 0).then_some(row.shared_bytes as f64),
    },
    Resource {
        name: "Registers",
        title: "registers of a thread",
        unit: "",
        of: |row| (row.registers > 0).then_some(row.registers as f64),
    },
    Resource {
        name: "Waves",
        title: "rounds of blocks",
        unit: "",
        of: |row| (row.waves > 0.0).then_some(row.waves),
    },
];

impl Resource {
    fn axis(&self, rows: &[&Row]) -> Option<Axis> {
        let values = rows.iter().filter_map(|row| (self.of)(row));
        match self.unit {
            "%" => rows
                .iter()
                .any(|row| (self.of)(row).is_some())
                .then(|| Axis::between(self.title, self.unit, 0.0, 100.0)),
            _ => Axis::log(self.title, self.unit, values),
        }
    }
}

/// Occupancy and shared memory over throughput: every row a dot, then each product against its own best.
pub(crate) fn section(rows: &[&Row]) -> Section {
    let kernels = shown_kernels(rows);
    let absolute = RESOURCES
        .iter()
        .filter_map(|resource| over(rows, resource, &kernels));
    let shares = shares_of_best(rows);
    // Waves follow from the product, not from the choice alone.
    let relative = RESOURCES
        .iter()
        .filter(|resource| resource.name != "Waves")
        .filter_map(|resource| relative_over(&shares, resource, &kernels));
    let pictures: Vec<_> = absolute.chain(relative).collect();
    Section {
        anchor: "resources",
        heading: "Occupancy and shared memory against throughput",
        explanation: "Rows of kernels that say what they take of a multiprocessor. First every row (dots spread sideways a little so that they do not cover one \
                      another; lines: each kernel's own median). Then, for products that were measured in several sizes of a kernel, each size against the best of its \
                      product: box half of the rows, thin nine of ten, mark the median."
            .to_owned(),
        body: match pictures.is_empty() {
            false => Ok(legend(&kernels) + &side_by_side(&pictures)),
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

fn over(rows: &[&Row], resource: &Resource, kernels: &[(Series, String)]) -> Option<String> {
    let point = |row: &&Row| Some(((resource.of)(row)?, row.ops() / row.time_s?));
    let points: Vec<_> = rows.iter().filter_map(point).collect();
    let x = resource.axis(rows)?;
    let y = Axis::log("throughput", "OPS", points.iter().map(|point| point.1))?;
    let label = format!("throughput over {}", resource.title);
    let lines: Vec<_> = kernels
        .iter()
        .map(|(series, kernel)| {
            let those = rows.iter().filter(|row| row.kernel == *kernel);
            (*series, medians(&x, &those.filter_map(point).collect::<Vec<_>>()))
        })
        .collect();
    let mut chart = Chart::new(label, SIZE, x, y);
    for (series, kernel) in kernels {
        let those = rows.iter().filter(|row| row.kernel == *kernel);
        let scattered = |(index, row): (usize, &&Row)| {
            let (x, y) = point(row)?;
            // The golden ratio spreads any number of dots evenly.
            let aside = (index as f64 * 0.618_034).fract() - 0.5;
            let x = match resource.unit {
                "%" => x + 2.4 * aside,
                _ => x * (1.0 + 0.05 * aside),
            };
            Some((x, y))
        };
        chart = chart.dots(*series, those.enumerate().filter_map(scattered));
    }
    for (series, steps) in lines.into_iter().filter(|(_, steps)| steps.len() > 1) {
        chart = chart.line(series, steps);
    }
    Some(figure(resource.name, "", &chart.svg()))
}

/// Rows of products that were measured in several sizes of a kernel, with their throughput in percent of the best of them.
fn shares_of_best<'a>(rows: &[&'a Row]) -> Vec<(&'a Row, f64)> {
    let key = |row: &Row| {
        format!(
            "{} {} {} {} {} {:?} {} {} {}",
            row.kernel,
            row.m,
            row.n,
            row.k,
            group_number::of(row.group_size),
            row.layout,
            row.alpha,
            row.beta,
            row.output
        )
    };
    let mut products = BTreeMap::<String, Vec<&'a Row>>::new();
    for row in rows.iter().filter(|row| row.occupancy > 0.0) {
        products.entry(key(row)).or_default().push(row);
    }
    let several = products.into_values().filter(|rows| rows.len() > 1);
    several
        .flat_map(|rows| {
            let best = rows
                .iter()
                .filter_map(|row| row.time_s)
                .fold(f64::INFINITY, f64::min);
            let share = move |row: &'a Row| Some((row, 100.0 * best / row.time_s?));
            rows.into_iter().filter_map(share)
        })
        .collect()
}

fn relative_over(
    shares: &[(&Row, f64)],
    resource: &Resource,
    kernels: &[(Series, String)],
) -> Option<String> {
    let rows: Vec<&Row> = shares.iter().map(|(row, _)| *row).collect();
    let x = resource.axis(&rows)?;
    let mut bins = BTreeMap::<(usize, usize), Vec<(f64, f64)>>::new();
    for (row, share) in shares {
        let kernel = kernels.iter().position(|(_, name)| *name == row.kernel);
        if let (Some(value), Some(kernel)) = ((resource.of)(row), kernel) {
            let step = ((x.place(value) * STEPS as f64) as usize).min(STEPS - 1);
            bins.entry((step, kernel)).or_default().push((value, *share));
        }
    }
    bins.retain(|_, points| points.len() >= LEAST_IN_STEP);
    let y = Axis::between("throughput by the best of the product", "%", 0.0, 100.0);
    let drawn = !bins.is_empty();
    let mut chart = Chart::new(format!("share of the best over {}", resource.title), SIZE, x, y);
    for ((_, kernel), points) in bins {
        let (series, name) = &kernels[kernel];
        let (values, shares): (Vec<_>, Vec<_>) = points.into_iter().unzip();
        let (at, shares) = (quantile(&sorted(values), 0.5), sorted(shares));
        let [low, first, middle, third, high] =
            [0.05, 0.25, 0.5, 0.75, 0.95].map(|fraction| quantile(&shares, fraction));
        let title = format!(
            "{name} at {}: median {middle:.0} % of the best, half from {first:.0} to {third:.0}, nine of ten from {low:.0} to {high:.0}; {} rows",
            quantity(at, resource.unit),
            shares.len()
        );
        chart = chart
            .span(*series, at, (low, high), 2.0, &title)
            .span(*series, at, (first, third), 9.0, &title)
            .marker(*series, (at, middle), &title);
    }
    let caption = format!("{}, each product against its best", resource.name);
    drawn.then(|| figure(&caption, "", &chart.svg()))
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
