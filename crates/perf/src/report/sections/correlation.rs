//! Rank correlations between what was chosen and what was measured.

use std::collections::BTreeMap;

use crate::data::Row;
use crate::machine::Machine;
use crate::report::plot::{heat_map, wide};
use crate::report::section::{Section, roofline_of_row};
use crate::report::statistics::rank_correlation;
use crate::roofline::Roofline;

/// Rows that a correlation needs.
const LEAST_ROWS: usize = 10;

type Quantity = fn(&Row, Option<&Roofline>) -> Option<f64>;

/// What is correlated: inputs, the configuration, then what was measured.
const QUANTITIES: [(&str, Quantity); 20] = [
    ("M", |row, _| Some(row.m as f64)),
    ("N", |row, _| Some(row.n as f64)),
    ("K", |row, _| Some(row.k as f64)),
    ("operations", |row, _| Some(row.ops())),
    ("bytes", |_, roofline| Some(roofline?.bytes())),
    ("intensity", |row, roofline| Some(row.ops() / roofline?.bytes())),
    ("roofline time", |_, roofline| Some(roofline?.roofline_s())),
    ("tile M", |row, _| nonzero(row.tile_m)),
    ("tile N", |row, _| nonzero(row.tile_n)),
    ("stages", |row, _| nonzero(row.stages)),
    ("threads", |row, _| nonzero(row.threads)),
    ("registers", |row, _| nonzero(row.registers)),
    ("shared memory", |row, _| nonzero(row.shared_bytes)),
    ("occupancy", |row, _| {
        (row.occupancy > 0.0).then_some(row.occupancy)
    }),
    ("waves", |row, _| (row.waves > 0.0).then_some(row.waves)),
    ("time", |row, _| row.time_s),
    ("power", |row, _| row.power_w),
    ("energy", |row, _| row.energy_j),
    ("throughput", |row, _| Some(row.ops() / row.time_s?)),
    ("throughput / W", |row, _| Some(row.ops() / row.energy_j?)),
];

/// A number that a kernel has; 0 means it has none.
fn nonzero(number: usize) -> Option<f64> {
    (number > 0).then_some(number as f64)
}

/// The heat map.
pub(crate) fn heat(rows: &[&Row], machine: Option<&Machine>) -> Section {
    Section {
        anchor: "correlation",
        heading: "Correlation",
        explanation: format!(
            "Spearman's rank correlation inside each kernel, over its sound rows that have both quantities, then the mean over kernels weighted \
             by their rows: 1 rises together, -1 falls as the other rises, a dash means that one of them varies inside no kernel of \
             {LEAST_ROWS} rows and more. Kernels are not mixed: the differences between them would pass for effects. No unit."
        ),
        body: drawn(rows, machine),
    }
}

fn drawn(rows: &[&Row], machine: Option<&Machine>) -> Result<String, String> {
    if rows.len() < LEAST_ROWS {
        return Err(format!("{} sound rows are too few to correlate.", rows.len()));
    }
    let kernels = rows_of_kernels(rows);
    let works: Vec<Option<Roofline>> = rows.iter().map(|row| roofline_of_row(row, machine)).collect();
    let columns: Vec<(&str, Vec<Option<f64>>)> = QUANTITIES
        .iter()
        .map(|(name, of)| {
            let values = rows
                .iter()
                .zip(&works)
                .map(|(row, roofline)| of(row, roofline.as_ref()));
            (*name, values.collect::<Vec<_>>())
        })
        .filter(|(_, values)| values.iter().flatten().count() >= LEAST_ROWS)
        .collect();
    let mut values = vec![vec![1.0; columns.len()]; columns.len()];
    for (row, (_, left)) in columns.iter().enumerate() {
        for (column, (_, right)) in columns.iter().enumerate().skip(row + 1) {
            let correlation = within_kernels(&kernels, left, right);
            (values[row][column], values[column][row]) = (correlation, correlation);
        }
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let svg = heat_map("rank correlations", &names, &values);
    Ok(wide(
        "Rank correlation of what was chosen and what was measured, inside kernels",
        "",
        &svg,
    ))
}

/// Places of each kernel's rows.
fn rows_of_kernels(rows: &[&Row]) -> Vec<Vec<usize>> {
    let mut kernels = BTreeMap::<&str, Vec<usize>>::new();
    for (place, row) in rows.iter().enumerate() {
        kernels.entry(&row.kernel).or_default().push(place);
    }
    kernels.into_values().collect()
}

/// Mean of the kernels' own correlations, weighted by the rows that have both; NaN where no kernel has one.
fn within_kernels(kernels: &[Vec<usize>], left: &[Option<f64>], right: &[Option<f64>]) -> f64 {
    let (mut sum, mut weight) = (0.0, 0.0);
    for places in kernels {
        let both = places
            .iter()
            .filter(|&&place| left[place].is_some() && right[place].is_some());
        let places: Vec<usize> = both.copied().collect();
        let those = |all: &[Option<f64>]| places.iter().map(|&place| all[place]).collect::<Vec<_>>();
        let correlation = rank_correlation(&those(left), &those(right));
        if places.len() >= LEAST_ROWS && !correlation.is_nan() {
            sum += correlation * places.len() as f64;
            weight += places.len() as f64;
        }
    }
    sum / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_differ_do_not_turn_the_correlation_inside_them_over() {
        // Inside both the right rises with the left; the second has more of the left and far less of the right.
        let kernels = [(0..20).collect::<Vec<usize>>(), (20..40).collect()];
        let left: Vec<_> = (0..40).map(|place| Some(f64::from(place))).collect();
        let right: Vec<_> = (0..40)
            .map(|place| Some(f64::from(if place < 20 { 1_000 + place } else { place })))
            .collect();
        assert!(rank_correlation(&left, &right) < 0.0);
        assert_eq!(within_kernels(&kernels, &left, &right), 1.0);
        assert!(within_kernels(&kernels, &left, &[Some(2.0); 40]).is_nan());
    }
}
