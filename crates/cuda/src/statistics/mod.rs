//! What calibration measures on a card: Gram matrices, errors of a layer's outputs, the largest magnitudes of columns.

mod gram;
mod maxima;
mod output_errors;

use crate::compiler::Source;

pub use gram::{GramMatrix, GramUpdate};
pub use maxima::{AbsMax, Maxima};
pub use output_errors::{ComputeOutputErrors, OutputErrors};

/// The texts and macros of all kernels here.
pub fn statistics_sources() -> Vec<Source> {
    let [products, sums] = output_errors::sources();
    vec![gram::source(), products, sums, maxima::source()]
}
