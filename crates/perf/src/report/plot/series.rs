//! A series: a colour and the shape of its markers.

/// Colours that the style knows, and shapes of marks.
pub const NUM_SERIES: usize = 16;

const NUM_MARKERS: usize = 8;

/// A colour and its mark, by index; colours beyond [`NUM_SERIES`] begin again, with other marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series(pub usize);

impl Series {
    /// The style class of the colour.
    pub fn class(self) -> String {
        format!("s{}", self.0 % NUM_SERIES)
    }

    /// The mark of a point that can be pointed at; each shape serves several colours.
    pub fn marker(self, x: f64, y: f64) -> String {
        match (self.0 + self.0 / NUM_MARKERS) % NUM_MARKERS {
            0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"/>"),
            1 => format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"6.6\" height=\"6.6\"/>",
                x - 3.3,
                y - 3.3
            ),
            2 => format!(
                "<path class=\"mark\" d=\"M{x:.1} {:.1}l4.2 7.4h-8.4z\"/>",
                y - 4.6
            ),
            3 => format!(
                "<path class=\"mark\" d=\"M{x:.1} {:.1}l4.6 4.6l-4.6 4.6l-4.6 -4.6z\"/>",
                y - 4.6
            ),
            4 => format!(
                "<path class=\"mark\" d=\"M{x:.1} {:.1}l4.2 -7.4h-8.4z\"/>",
                y + 4.6
            ),
            5 => format!(
                "<path class=\"cross\" d=\"M{:.1} {:.1}l6.4 6.4m0 -6.4l-6.4 6.4\"/>",
                x - 3.2,
                y - 3.2
            ),
            6 => format!(
                "<path class=\"cross\" d=\"M{:.1} {y:.1}h8.4m-4.2 -4.2v8.4\"/>",
                x - 4.2
            ),
            _ => format!(
                "<path class=\"cross\" d=\"M{:.1} {:.1}h6.4v6.4h-6.4z\"/>",
                x - 3.2,
                y - 3.2
            ),
        }
    }
}
