//! A chart: two axes, and layers of dots, densities, lines, bands and rules between them.

use std::collections::HashSet;
use std::fmt::Write;

use super::axis::Axis;
use super::escape::escaped;
use super::series::Series;

/// Room right of and above the plot, and below it for numbers and the title.
const RIGHT: f64 = 18.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// Width of a digit of the numbers at the axes.
const DIGIT: f64 = 7.0;
/// Side of a cell of a density, in the picture's units.
const CELL: f64 = 3.0;
/// Counts from which on a cell is drawn darker.
const SHADES: [usize; 4] = [1, 3, 8, 20];
/// Fewer dots than this are drawn larger.
const FEW_DOTS: usize = 600;
/// Dots nearer than this are drawn once.
const DOT_GRID: f64 = 0.8;

/// A picture under construction.
#[derive(Debug, Clone)]
pub struct Chart {
    label: String,
    size: (f64, f64),
    x: Axis,
    y: Axis,
    left: f64,
    layers: String,
}

impl Chart {
    /// An empty chart of `size` units, described by `label` to those who cannot see it.
    pub fn new(label: impl Into<String>, size: (f64, f64), x: Axis, y: Axis) -> Self {
        let digits = y
            .ticks()
            .into_iter()
            .map(|tick| y.text(tick).chars().count())
            .max();
        Self {
            label: label.into(),
            size,
            x,
            y,
            left: 34.0 + DIGIT * digits.unwrap_or(0) as f64,
            layers: String::new(),
        }
    }

    /// Where a point lies in the picture.
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (right, bottom) = (self.size.0 - RIGHT, self.size.1 - BOTTOM);
        (
            self.left + (right - self.left) * self.x.place(x),
            bottom - (bottom - TOP) * self.y.place(y),
        )
    }

    /// Many points as one path of dots; those that would cover one another are drawn once.
    pub fn dots(mut self, series: Series, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut seen = HashSet::new();
        let mut path = String::new();
        for point in points {
            let (x, y) = self.at(point);
            if seen.insert(((x / DOT_GRID) as i32, (y / DOT_GRID) as i32)) {
                let _ = write!(path, "M{x:.1} {y:.1}h0");
            }
        }
        let size = if seen.len() < FEW_DOTS { "few" } else { "dots" };
        let class = series.class();
        let _ = write!(self.layers, "<path class=\"{size} {class}\" d=\"{path}\"/>");
        self
    }

    /// Many points as cells that are the darker the more points they hold.
    pub fn density(mut self, series: Series, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut counts = std::collections::BTreeMap::<(i32, i32), usize>::new();
        for point in points {
            let (x, y) = self.at(point);
            *counts.entry(((x / CELL) as i32, (y / CELL) as i32)).or_default() += 1;
        }
        for (shade, &least) in SHADES.iter().enumerate() {
            let most = SHADES.get(shade + 1).copied().unwrap_or(usize::MAX);
            let cells = counts.iter().filter(|(_, count)| (least..most).contains(count));
            let path = cells.fold(String::new(), |mut path, ((x, y), _)| {
                let (x, y) = (f64::from(*x) * CELL, f64::from(*y) * CELL);
                let _ = write!(path, "M{x} {y}h{CELL}v{CELL}h-{CELL}z");
                path
            });
            if !path.is_empty() {
                let class = series.class();
                let _ = write!(self.layers, "<path class=\"d{shade} {class}\" d=\"{path}\"/>");
            }
        }
        self
    }

    /// A line through points.
    pub fn line(mut self, series: Series, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let text = self.polyline(points);
        let class = series.class();
        let _ = write!(self.layers, "<polyline class=\"{class}\" points=\"{text}\"/>");
        self
    }

    /// The area between two lines over the same places `(x, low, high)`.
    pub fn band(mut self, series: Series, places: &[(f64, f64, f64)]) -> Self {
        let there = places.iter().map(|&(x, low, _)| (x, low));
        let back = places.iter().rev().map(|&(x, _, high)| (x, high));
        let text = self.polyline(there.chain(back));
        let class = series.class();
        let _ = write!(self.layers, "<polygon class=\"band {class}\" points=\"{text}\"/>");
        self
    }

    /// A line that is no data: a ceiling, equality.
    pub fn rule(mut self, from: (f64, f64), to: (f64, f64)) -> Self {
        let text = self.polyline([from, to]);
        let _ = write!(self.layers, "<polyline class=\"rule\" points=\"{text}\"/>");
        self
    }

    /// Words beside a point of the chart; `anchor` is SVG's `start`, `middle` or `end`.
    pub fn words(mut self, at: (f64, f64), anchor: &str, text: &str) -> Self {
        let (x, y) = self.at(at);
        let _ = write!(
            self.layers,
            "<text class=\"words\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            y - 5.0,
            escaped(text)
        );
        self
    }

    /// A point that says what it is when pointed at.
    pub fn marker(mut self, series: Series, at: (f64, f64), title: &str) -> Self {
        let (x, y) = self.at(at);
        let _ = write!(
            self.layers,
            "<g class=\"{}\"><title>{}</title>{}</g>",
            series.class(),
            escaped(title),
            series.marker(x, y)
        );
        self
    }

    /// An upright bar from `low` to `high`, thick or thin, with a title.
    pub fn span(mut self, series: Series, x: f64, (low, high): (f64, f64), width: f64, title: &str) -> Self {
        let ((x, bottom), (_, top)) = (self.at((x, low)), self.at((x, high)));
        let _ = write!(
            self.layers,
            "<g class=\"{}\"><title>{}</title><rect class=\"span\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{width}\" \
             height=\"{:.1}\"/></g>",
            series.class(),
            escaped(title),
            x - width / 2.0,
            (bottom - top).max(1.0)
        );
        self
    }

    fn polyline(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let mut text = String::new();
        for point in points {
            let (x, y) = self.at(point);
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The picture; `names` take the place of numbers on the x axis where given: (value, name).
    pub fn svg_named(self, names: &[(f64, String)]) -> String {
        let mut svg = self.frame();
        svg += &self.y_numbers();
        for (value, name) in names {
            svg += &self.x_number(*value, name, false);
        }
        self.closed(svg)
    }

    /// The picture.
    pub fn svg(self) -> String {
        let mut svg = self.frame();
        svg += &self.y_numbers();
        let ticks = self.x.ticks();
        let every = self.readable_stride(&ticks);
        for (index, tick) in ticks.iter().enumerate() {
            // What has no room for its number keeps its line.
            let text = match index % every {
                0 => self.x.text(*tick),
                _ => String::new(),
            };
            svg += &self.x_number(*tick, &text, true);
        }
        self.closed(svg)
    }

    /// Every how many ticks of the x axis get a number, so that none touches its neighbour.
    fn readable_stride(&self, ticks: &[f64]) -> usize {
        let ends = |tick: &f64| {
            let half = DIGIT * (self.x.text(*tick).chars().count() as f64 + 1.0) / 2.0;
            let (x, _) = self.at((*tick, 0.0));
            (x - half, x + half)
        };
        let readable = |every: &usize| {
            let shown: Vec<_> = ticks.iter().step_by(*every).map(ends).collect();
            shown.windows(2).all(|pair| pair[0].1 <= pair[1].0)
        };
        (1..=ticks.len()).find(readable).unwrap_or(1)
    }

    fn frame(&self) -> String {
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            self.size.0,
            self.size.1,
            escaped(&self.label)
        )
    }

    fn y_numbers(&self) -> String {
        let (left, right) = (self.left, self.size.0 - RIGHT);
        self.y.ticks().into_iter().fold(String::new(), |mut svg, tick| {
            let (_, y) = self.at((0.0, tick));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 7.0,
                y + 4.0,
                self.y.text(tick)
            );
            svg
        })
    }

    fn x_number(&self, value: f64, text: &str, line: bool) -> String {
        let bottom = self.size.1 - BOTTOM;
        let (x, _) = self.at((value, 0.0));
        let line = match line {
            true => {
                format!("<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>")
            }
            false => String::new(),
        };
        format!(
            "{line}<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 17.0,
            escaped(text)
        )
    }

    fn closed(&self, mut svg: String) -> String {
        let (left, right, bottom) = (self.left, self.size.0 - RIGHT, self.size.1 - BOTTOM);
        svg += &self.layers;
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{left:.1} {TOP}V{bottom}H{right:.1}\"/>\
             <text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"title\" transform=\"rotate(-90)\" x=\"{:.1}\" y=\"14\" text-anchor=\"middle\">{}</text></svg>",
            (left + right) / 2.0,
            bottom + 37.0,
            escaped(self.x.title()),
            -(TOP + bottom) / 2.0,
            escaped(self.y.title()),
        );
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot::series::NUM_SERIES;

    fn chart() -> Chart {
        let axis = |title: &str| Axis::log(title, "s", [1e-6, 1.0]).unwrap();
        Chart::new("a & b", (420.0, 300.0), axis("measured"), axis("<predicted>"))
    }

    #[test]
    fn twenty_thousand_points_stay_a_small_picture() {
        let points = || {
            (0..20_000_u64).map(|i| {
                let spread = |by: u64| 10_f64.powf(-6.0 * ((i * by % 9_973) as f64 / 9_973.0));
                (spread(7_919), spread(104_729))
            })
        };
        let dots = chart().dots(Series(0), points()).svg();
        let density = chart().density(Series(0), points()).svg();
        assert!(dots.len() < 300_000, "{} bytes", dots.len());
        assert!(density.len() < 300_000, "{} bytes", density.len());
        assert_eq!(density.matches("class=\"d").count(), 3, "shades in use");
    }

    #[test]
    fn series_differ_in_colour_and_those_of_equal_colour_in_their_marks() {
        let looks: Vec<_> = (0..4 * NUM_SERIES)
            .map(|index| (Series(index).class(), Series(index).marker(0.0, 0.0)))
            .collect();
        let colours: HashSet<_> = looks[..NUM_SERIES].iter().map(|look| &look.0).collect();
        assert_eq!(colours.len(), NUM_SERIES);
        assert_eq!(looks.iter().collect::<HashSet<_>>().len(), looks.len());
    }

    #[test]
    fn titles_from_outside_cannot_become_markup() {
        let svg = chart().marker(Series(1), (1e-3, 1e-3), "<script>").svg();
        assert!(!svg.contains("<script>") && !svg.contains("<predicted>"));
        assert!(svg.contains("a &amp; b"));
    }

    #[test]
    fn points_beyond_the_axes_are_drawn_at_their_ends() {
        let svg = chart().line(Series(0), [(0.0, 1e9)]).svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
