//! The roofline: every row below the ceilings of the machine.

use crate::data::Row;
use crate::machine::Machine;
use crate::report::plot::{Axis, Chart, legend, quantity, wide};
use crate::report::section::{Section, kernel_series, roofline_of_row};
use crate::roofline::Roofline;

const SIZE: (f64, f64) = (860.0, 460.0);

/// Every row by what it computes for a byte and what it reaches.
pub(crate) fn roofline(rows: &[&Row], machine: Option<&Machine>) -> Section {
    Section {
        anchor: "roofline",
        heading: "Roofline",
        explanation: format!(
            "Every sound row: operations for each byte that has to be moved once (weights with their scales, activations, output), \
             and operations a second. Dashed: the machine's ceilings, each measured on one large product or one long read before the \
             sweep. {}",
            machine.map_or_else(String::new, |machine| above(rows, machine))
        ),
        body: machine
            .and_then(|machine| drawn(rows, machine))
            .ok_or_else(|| "No rows, or no kernel whose types its name tells.".to_owned()),
    }
}

/// How many rows lie above the ceilings, and what that says.
fn above(rows: &[&Row], machine: &Machine) -> String {
    let times = |of: fn(&Roofline) -> f64| -> Vec<f64> {
        let times = rows
            .iter()
            .filter_map(|row| Some(of(&roofline_of_row(row, Some(machine))?) / row.time_s?));
        times.filter(|times| times.is_finite() && *times > 1.0).collect()
    };
    let (computing, reading) = (
        times(|roofline| roofline.compute_s),
        times(|roofline| roofline.memory_s),
    );
    let most = |times: &[f64]| times.iter().copied().fold(1.0, f64::max);
    format!(
        "{} of {} rows lie above the ceiling of their type, at most {:.2} times as high: a ceiling is one measurement too, and clocks and \
         other programs differ from row to row. {} lie above the slope, at most {:.2} times as high: a cache served them.",
        computing.len(),
        rows.len(),
        most(&computing),
        reading.len(),
        most(&reading)
    )
}

fn drawn(rows: &[&Row], machine: &Machine) -> Option<String> {
    let point = |row: &&Row| {
        let roofline = roofline_of_row(row, Some(machine))?;
        Some((roofline.ops / roofline.bytes(), roofline.ops / row.time_s?))
    };
    let points: Vec<_> = rows.iter().filter_map(point).collect();
    let ceilings = [
        ("8-bit integers", machine.int8_ops_per_s),
        ("16-bit floats", machine.half_ops_per_s),
        ("32-bit floats", machine.float_ops_per_s),
    ];
    let highest = ceilings.map(|ceiling| ceiling.1).into_iter().fold(0.0, f64::max);
    let x = Axis::log("operations a byte", "OP/B", points.iter().map(|point| point.0))?;
    let y = Axis::log(
        "operations a second",
        "OPS",
        points.iter().map(|point| point.1).chain([highest]),
    )?;
    let (left, right, bottom) = (x.least(), x.most(), y.least());
    let bandwidth = machine.read_bytes_per_s;
    let mut chart = Chart::new("operations a second over operations a byte", SIZE, x, y);
    let kernels = kernel_series(rows);
    for (series, kernel) in &kernels {
        let those = rows.iter().filter(|row| row.kernel == *kernel).filter_map(point);
        chart = chart.dots(*series, those);
    }
    let from = left.max(bottom / bandwidth);
    let to = (highest / bandwidth).min(right);
    chart = chart.rule((from, from * bandwidth), (to, to * bandwidth));
    for (name, ceiling) in ceilings.into_iter().filter(|ceiling| ceiling.1 > 0.0) {
        let text = format!("{name}: {}", quantity(ceiling, "OPS"));
        chart = chart
            .rule(
                ((ceiling / bandwidth).clamp(left, right), ceiling),
                (right, ceiling),
            )
            .words((right, ceiling), "end", &text);
    }
    let slope = format!("memory: {}", quantity(bandwidth, "B/s"));
    let at = (from * to).sqrt();
    chart = chart.words((at, at * bandwidth), "end", &format!("{slope}  "));
    Some(wide(
        "All rows and the machine's measured ceilings",
        &legend(&kernels),
        &chart.svg(),
    ))
}
