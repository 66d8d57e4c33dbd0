//! What rounding to nearest leaves of weights, whatever the scheme.

use dualgrain_format::LinearScheme;

use crate::methods::int8::int8_rounding_errors;
use crate::methods::rtn::rounding_errors;

/// The errors `[N,K]` that rounding `weights` `[N,K]` to nearest in `scheme` leaves.
pub fn errors_of(scheme: LinearScheme, weights: &[f32], k: usize) -> Vec<f32> {
    match scheme {
        LinearScheme::Float => vec![0.0; weights.len()],
        LinearScheme::W8 => int8_rounding_errors(weights, k),
        LinearScheme::W4 { group_size } => rounding_errors(weights, k, group_size),
    }
}
