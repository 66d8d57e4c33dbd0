//! A heat map: a square of coloured cells, for correlations from -1 to 1.

use std::fmt::Write;

use super::escape::escaped;

const CELL: f64 = 34.0;
/// Room for names, left and above.
const NAMES: f64 = 132.0;

/// `values[row][column]` in -1..=1, or NaN where nothing can be said. Positive cells are of the first colour, negative ones of
/// the second, the fuller the stronger; each shows its number.
pub fn heat_map(label: &str, names: &[&str], values: &[Vec<f64>]) -> String {
    let side = NAMES + CELL * names.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {:.0} {side:.0}\" role=\"img\" aria-label=\"{}\">",
        // The last name leans over the edge.
        side + 72.0,
        escaped(label)
    );
    for (index, name) in names.iter().enumerate() {
        let at = NAMES + CELL * (index as f64 + 0.5);
        let name = escaped(name);
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <text transform=\"translate({:.1} {:.1}) rotate(-45)\">{name}</text>",
            NAMES - 6.0,
            at + 4.0,
            at + 4.0,
            NAMES - 7.0
        );
    }
    for (row, line) in values.iter().enumerate() {
        for (column, &value) in line.iter().enumerate() {
            svg += &cell(row, column, value, names);
        }
    }
    svg + "</svg>"
}

fn cell(row: usize, column: usize, value: f64, names: &[&str]) -> String {
    let (x, y) = (NAMES + CELL * column as f64, NAMES + CELL * row as f64);
    let name = |index: usize| escaped(names.get(index).copied().unwrap_or_default());
    let (class, text) = match value {
        v if v.is_nan() => ("none", "-".to_owned()),
        v if v < 0.0 => ("minus", number(v)),
        v => ("plus", number(v)),
    };
    let strength = if value.is_nan() { 0.0 } else { value.abs().min(1.0) };
    let ink = if strength > 0.55 { " class=\"over\"" } else { "" };
    format!(
        "<g class=\"{class}\"><title>{} and {}: {text}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
         fill-opacity=\"{strength:.2}\"/><text{ink} x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text></g>",
        name(row),
        name(column),
        x + 0.5,
        y + 0.5,
        CELL - 1.0,
        CELL - 1.0,
        x + CELL / 2.0,
        y + CELL / 2.0 + 4.0
    )
}

/// Two places without the leading zero: a cell is small.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    match text.as_str() {
        "0.00" | "-0.00" => "0".to_owned(),
        "1.00" => "1".to_owned(),
        "-1.00" => "-1".to_owned(),
        _ => text.replacen("0.", ".", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_cells_are_short() {
        assert_eq!(
            [0.123, -0.456, 1.0, -0.001, -0.999].map(number),
            [".12", "-.46", "1", "0", "-1"]
        );
    }

    #[test]
    fn what_cannot_be_said_is_a_dash() {
        let svg = heat_map("h", &["a", "b"], &[vec![1.0, f64::NAN], vec![f64::NAN, 1.0]]);
        assert!(svg.contains("a and b: -") && !svg.contains("NaN"));
    }
}
