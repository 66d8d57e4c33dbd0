//! Time against energy: every configuration of a product, and the Pareto front of those that no other beats in both.

use std::collections::BTreeMap;

use crate::data::Row;
use crate::operands::OperandTypes;
use crate::report::plot::{Axis, Chart, NUM_SERIES, Series, figure, legend, quantity, side_by_side};
use crate::report::section::{Section, kernel_series, row_title};

const SIZE: (f64, f64) = (420.0, 300.0);
/// Products that are drawn of a pair of operand types.
const SHOWN: usize = 4;
/// Configurations with energy that a product needs.
const LEAST_CONFIGS: usize = 3;

/// What competes: bits of the operands, and the product.
type ComparedProduct = ([u32; 2], (usize, usize, usize));

/// The products with the most configurations, of each pair of operand types.
pub(crate) fn section(rows: &[&Row]) -> Section {
    let products = compared_products(rows);
    let drawn: Vec<&Row> = products
        .iter()
        .flat_map(|(_, rows)| rows.iter().copied())
        .collect();
    let kernels = kernel_series(&drawn);
    let pictures: Vec<_> = products
        .iter()
        .filter_map(|((_, shape), rows)| picture(*shape, rows, &kernels))
        .collect();
    Section {
        anchor: "trade",
        heading: "Time against energy",
        explanation: format!(
            "For each pair of operand types the {SHOWN} products with the most configurations whose energy was measured. A mark is a configuration; the \
             line joins those that no other beats in both."
        ),
        body: match pictures.is_empty() {
            false => Ok(legend(&kernels[..kernels.len().min(NUM_SERIES)]) + &side_by_side(&pictures)),
            true => Err(format!(
                "No product has energy measured in {LEAST_CONFIGS} configurations or more (a machine that hides its counter has none)."
            )),
        },
    }
}

/// The products that are drawn: small ones first, 4-bit weights before others.
fn compared_products<'a>(rows: &[&'a Row]) -> Vec<(ComparedProduct, Vec<&'a Row>)> {
    let mut products = BTreeMap::<ComparedProduct, Vec<&'a Row>>::new();
    for row in rows
        .iter()
        .filter(|row| row.energy_j.is_some_and(|energy| energy > 0.0))
    {
        if let Ok(operand_types) = OperandTypes::of_kernel(&row.kernel) {
            let bits = [operand_types.b_bits as u32, operand_types.a_bits as u32];
            products
                .entry((bits, (row.m, row.n, row.k)))
                .or_default()
                .push(row);
        }
    }
    let mut products: Vec<_> = products
        .into_iter()
        .filter(|(_, rows)| rows.len() >= LEAST_CONFIGS)
        .collect();
    products.sort_by_key(|((bits, shape), rows)| (*bits, std::cmp::Reverse(rows.len()), *shape));
    let mut kept: Vec<(ComparedProduct, Vec<&'a Row>)> = Vec::new();
    for product in products {
        let of_types = kept.iter().filter(|(known, _)| known.0 == product.0.0).count();
        if of_types < SHOWN {
            kept.push(product);
        }
    }
    kept.sort_by(|a, b| a.0.0.cmp(&b.0.0).then(a.1[0].ops().total_cmp(&b.1[0].ops())));
    kept
}

fn picture((m, n, k): (usize, usize, usize), rows: &[&Row], kernels: &[(Series, String)]) -> Option<String> {
    let points: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row.time_s?, row.energy_j?, *row)))
        .collect();
    let x = Axis::log("time of a product", "s", points.iter().map(|point| point.0))?;
    let y = Axis::log("energy of a product", "J", points.iter().map(|point| point.1))?;
    let mut chart = Chart::new(format!("energy over time of {m} x {n} x {k}"), SIZE, x, y).line(
        Series(5),
        front(points.iter().map(|point| (point.0, point.1)).collect()),
    );
    for (time, energy, row) in &points {
        let series = kernels.iter().find(|(_, name)| *name == row.kernel)?.0;
        let title = format!(
            "{}: {}, {}, {}",
            row_title(row),
            quantity(*time, "s"),
            quantity(*energy, "J"),
            quantity(row.power_w.unwrap_or(f64::NAN), "W")
        );
        chart = chart.marker(series, (*time, *energy), &title);
    }
    let caption = format!("{m} x {n} x {k}: {} configurations", points.len());
    Some(figure(&caption, "", &chart.svg()))
}

/// Points that no other beats in both coordinates, from the fastest on.
fn front(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut least = f64::INFINITY;
    points.retain(|point| {
        let better = point.1 < least;
        least = least.min(point.1);
        better
    });
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_holds_what_nothing_beats_in_both() {
        let points = vec![
            (2.0, 5.0),
            (1.0, 9.0),
            (3.0, 5.0),
            (4.0, 1.0),
            (1.0, 10.0),
            (5.0, 2.0),
        ];
        assert_eq!(front(points), [(1.0, 9.0), (2.0, 5.0), (4.0, 1.0)]);
    }
}
