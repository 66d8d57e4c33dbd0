//! The schemes that a budget chooses among, and what each leaves of a linear's error.

use dualgrain_format::{GroupSize, LinearScheme};

/// The schemes that a budget chooses among, fewest bits first.
pub const LEVELS: [LinearScheme; 4] = [
    LinearScheme::w4(GroupSize::Along(128)),
    LinearScheme::w4(GroupSize::Along(64)),
    LinearScheme::w4(GroupSize::Along(32)),
    LinearScheme::W8,
];

/// The squared error a token that the weight errors `[N,K]` put out, on an input whose channels have these mean squares `[K]`. Errors
/// of rounding do not know of each other, so those of two columns do not add up and the rest of the Gram matrix does not count.
pub fn output_error(errors: &[f32], mean_squares: &[f64]) -> f64 {
    let of_row = |row: &[f32]| {
        let terms = row.iter().zip(mean_squares);
        terms
            .map(|(&e, square)| f64::from(e) * f64::from(e) * square)
            .sum::<f64>()
    };
    errors.chunks_exact(mean_squares.len()).map(of_row).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::rounding::errors_of;

    #[test]
    fn each_level_leaves_less_than_the_one_before() {
        let (n, k) = (8, 256);
        // Many small weights and a few large ones, as in a model.
        let uniform = |i: usize| ((i * 2_654_435_761) % 1_009) as f32 / 504.5 - 1.0;
        let weights: Vec<f32> = (0..n * k)
            .map(|i| uniform(i) * uniform(7 * i + 1) * uniform(13 * i + 5))
            .collect();
        let squares = vec![1.0; k];
        let left = LEVELS.map(|scheme| output_error(&errors_of(scheme, &weights, k), &squares));
        assert!(left.windows(2).all(|pair| pair[1] < pair[0]), "{left:?}");
        assert_eq!(
            output_error(&errors_of(LinearScheme::Float, &weights, k), &squares),
            0.0
        );
    }

    #[test]
    fn a_silent_channel_does_not_count() {
        assert_eq!(output_error(&[2.0, 3.0, 1.0, 0.0], &[1.0, 0.0]), 5.0);
    }
}
