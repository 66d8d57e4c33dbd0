//! Horizontal bars, one below the other.

use std::fmt::Write;

use super::axis::quantity;
use super::escape::escaped;
use super::series::Series;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What stands before it.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// Its 90 % interval, drawn as a line.
    pub interval: Option<(f64, f64)>,
    /// Said when pointed at.
    pub title: String,
}

const WIDTH: f64 = 420.0;
const ROW: f64 = 22.0;
/// Room for the longest value.
const VALUE: f64 = 62.0;

/// All bars over the same scale from zero; the name stands left of, the value right of each.
pub fn bars(label: &str, series: Series, unit: &str, bars: &[Bar]) -> String {
    let longest = bars
        .iter()
        .map(|bar| bar.interval.map_or(bar.value, |(_, high)| high.max(bar.value)))
        .fold(f64::MIN_POSITIVE, f64::max);
    let names = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let left = (7.2 * names as f64 + 10.0).min(WIDTH / 2.0);
    let length = |value: f64| (WIDTH - VALUE - left) * (value / longest).clamp(0.0, 1.0);
    let height = ROW * bars.len() as f64 + 6.0;
    let class = series.class();
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escaped(label)
    );
    for (index, bar) in bars.iter().enumerate() {
        let top = 3.0 + ROW * index as f64;
        let end = bar.interval.map_or(bar.value, |(_, high)| high.max(bar.value));
        let _ = write!(
            svg,
            "<g class=\"{class}\"><title>{}</title><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>{}\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escaped(&bar.title),
            left - 7.0,
            top + 15.0,
            escaped(&bar.name),
            top + 3.0,
            length(bar.value).max(1.0),
            ROW - 6.0,
            whisker(bar.interval, left, top + ROW / 2.0, &length),
            left + length(end) + 6.0,
            top + 15.0,
            quantity(bar.value, unit)
        );
    }
    svg + "</svg>"
}

fn whisker(interval: Option<(f64, f64)>, left: f64, y: f64, length: &dyn Fn(f64) -> f64) -> String {
    interval.map_or_else(String::new, |(low, high)| {
        format!(
            "<path class=\"whisker\" d=\"M{:.1} {y:.1}H{:.1}\"/>",
            left + length(low),
            left + length(high)
        )
    })
}
