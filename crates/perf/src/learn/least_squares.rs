//! Least squares with factors that are not negative and are pulled towards a prior.

/// Passes over the factors; each solves for one at a time, and they settle long before.
const PASSES: usize = 400;

/// Pull of each factor towards `prior`, in rows.
const PULL: f64 = 8.0;

/// Least squares of the relative error over rows of terms and what they sum up to, factors not below 0 and pulled towards
/// `prior`.
pub(crate) fn fit<const N: usize>(rows: &[([f64; N], f64)], prior: &[f64; N]) -> [f64; N] {
    let mut gram = [[0.0; N]; N];
    let mut right = [0.0; N];
    for (terms, sum) in rows {
        let relative = terms.map(|term| term / sum);
        for (i, left) in relative.iter().enumerate() {
            right[i] += left;
            for (j, other) in relative.iter().enumerate() {
                gram[i][j] += left * other;
            }
        }
    }
    let pull: [f64; N] = std::array::from_fn(|i| PULL * gram[i][i] / rows.len().max(1) as f64 + 1e-12);
    let mut factors = *prior;
    for _ in 0..PASSES {
        for i in 0..N {
            let others: f64 = (0..N).filter(|&j| j != i).map(|j| gram[i][j] * factors[j]).sum();
            factors[i] = ((right[i] - others + pull[i] * prior[i]) / (gram[i][i] + pull[i])).max(0.0);
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::physics::{NUM_TERMS, TimeFactors, rough_time_s};

    #[test]
    fn factors_that_made_the_times_are_found_again() {
        let truth: TimeFactors = [2.0, 1.2, 1.5, 0.0, 0.5, 3.0, 0.0, 0.7, 0.0];
        let mut rows = Vec::new();
        for i in 1..400u32 {
            let x = f64::from(i);
            let terms = [
                1e-6,
                x * 1e-7,
                (x * 37.0 % 53.0) * 1e-7,
                (x * 11.0 % 29.0) * 1e-7,
                (x / 9.0).ceil() * 1e-6,
                1e-8 * (x % 7.0),
                (x * 13.0 % 31.0) * 1e-7,
                (x * 17.0 % 41.0) * 1e-7,
                (x * 19.0 % 23.0) * 1e-7,
            ];
            rows.push((terms, rough_time_s(&truth, &terms)));
        }
        let found = fit(&rows, &[1.0; NUM_TERMS]);
        let errors = rows
            .iter()
            .map(|(terms, time_s)| (rough_time_s(&found, terms) / time_s - 1.0).abs());
        let mean = errors.sum::<f64>() / rows.len() as f64;
        assert!(mean < 0.01, "{mean}: {found:?}");
        assert!(found.iter().all(|factor| *factor >= 0.0));
    }
}
