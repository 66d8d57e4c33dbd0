//! Throughput by the layout of the operands, each product against its best layout.

use std::collections::BTreeMap;

use crate::data::Row;
use crate::product::Layout;
use crate::report::plot::{Axis, Chart, Series, figure, side_by_side};
use crate::report::section::Section;
use crate::report::statistics::{quantile, sorted};

const SIZE: (f64, f64) = (420.0, 300.0);

/// By kernel and product, the rows of products that were measured in more than one layout.
fn products_in_layouts<'a>(rows: &[&'a Row]) -> BTreeMap<(String, String), Vec<&'a Row>> {
    let mut products = BTreeMap::<(String, String), Vec<&Row>>::new();
    for row in rows {
        let product = format!(
            "{} {} {} {} {} {} {}",
            row.config, row.m, row.n, row.k, row.alpha, row.beta, row.output
        );
        let rows = products.entry((row.kernel.clone(), product));
        rows.or_default().push(row);
    }
    products.retain(|_, rows| {
        let first = rows[0].layout;
        rows.iter().any(|row| row.layout != first)
    });
    products
}

/// How operands lie: each product against itself in the best layout.
pub(crate) fn layouts(rows: &[&Row]) -> Section {
    let products = products_in_layouts(rows);
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
    (!pictures.is_empty()).then(|| side_by_side(&pictures))
}

fn boxes(series: Series, kernel: &str, layouts: &BTreeMap<Layout, Vec<f64>>) -> String {
    let names: Vec<_> = layouts
        .keys()
        .enumerate()
        .map(|(place, layout)| (place as f64 + 0.5, layout.to_string()))
        .collect();
    let x = Axis::between("layout of A and B", "", 0.0, names.len() as f64);
    let y = Axis::between("throughput by that of the best layout", "%", 0.0, 100.0);
    let mut chart = Chart::new(format!("throughput of {kernel} by layout"), SIZE, x, y);
    for ((place, name), values) in names.iter().zip(layouts.values()) {
        let values = sorted(values.iter().copied());
        let [low, first, middle, third, high] =
            [0.05, 0.25, 0.5, 0.75, 0.95].map(|fraction| quantile(&values, fraction));
        let title = format!(
            "{name}: median {middle:.1} % of the best, half from {first:.1} to {third:.1}, nine of ten from {low:.1} to {high:.1}; {} products",
            values.len()
        );
        chart = chart
            .span(series, *place, (low, high), 4.0, &title)
            .span(series, *place, (first, third), 34.0, &title)
            .marker(series, (*place, middle), &title);
    }
    figure(kernel, "", &chart.svg_named(&names))
}
