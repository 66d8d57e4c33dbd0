//! Pictures as SVG text, and the HTML document around them: one file without scripts that needs no network and is
//! readable in light and dark.
//!
//! A picture is a chart: two axes, and layers that are drawn in order. Tens of thousands of points become one path, or a
//! few shades of a grid, so that a document stays small. Two series never differ by colour alone; their markers differ
//! too.

mod axis;
mod bars;
mod chart;
mod document;
mod escape;
mod heat;
mod series;

pub use axis::{Axis, quantity};
pub use bars::{Bar, bars};
pub use chart::Chart;
pub use document::{Document, absent, figure, legend, note, side_by_side, subcaption, table, wide};
pub use escape::escaped;
pub use heat::heat_map;
pub use series::{NUM_SERIES, Series};
