//! Pictures as SVG text, and the page they stand on: one file, no script, no network, light and dark.
//!
//! A picture is a [`Chart`]: two [`Axis`] and layers drawn in order. Tens of thousands of points become one path (or a few
//! shades of a grid), so that a page stays small. Colours and marks differ together: no series is told by colour alone.

mod axis;
mod bars;
mod chart;
mod document;
mod heat;

pub use axis::{Axis, quantity};
pub use bars::{Bar, bars};
pub use chart::{Chart, NUM_SERIES, Series};
pub use document::{Page, absent, escaped, figure, grid, legend, note, table, under, wide};
pub use heat::heat_map;
