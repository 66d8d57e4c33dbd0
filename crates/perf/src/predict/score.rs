//! How well predictions agree with measurements: the usual figures of regression.

use serde::{Deserialize, Serialize};

/// Agreement of predictions with measurements, over rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of the variance that is explained.
    pub r2: f64,
    /// The same of the logarithms.
    pub r2_log: f64,
    /// Mean squared error, in the target's unit squared.
    pub mse: f64,
    /// Mean absolute error, in the target's unit.
    pub mae: f64,
    /// Mean of |predicted / measured - 1|, percent.
    pub mean_percent_error: f64,
    /// Median of the same.
    pub median_percent_error: f64,
    /// Share of measurements inside their interval, where there are intervals.
    pub coverage: Option<f64>,
}

impl Score {
    /// Of pairs (measured, predicted), all above 0; `None` without a pair.
    pub fn new(pairs: &[(f64, f64)]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let mean_of =
            |value: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(value).sum::<f64>() / pairs.len() as f64;
        let mut percent: Vec<f64> = pairs
            .iter()
            .map(|(measured, predicted)| 100.0 * (predicted / measured - 1.0).abs())
            .collect();
        percent.sort_by(f64::total_cmp);
        let logs: Vec<(f64, f64)> = pairs
            .iter()
            .map(|(left, right)| (left.ln(), right.ln()))
            .collect();
        Some(Self {
            r2: r2(pairs),
            r2_log: r2(&logs),
            mse: mean_of(&|(measured, predicted)| (predicted - measured).powi(2)),
            mae: mean_of(&|(measured, predicted)| (predicted - measured).abs()),
            mean_percent_error: percent.iter().sum::<f64>() / percent.len() as f64,
            median_percent_error: median(&percent),
            coverage: None,
        })
    }
}

/// Share of the variance of the first that the second explains; 0 where there is no variance.
fn r2(pairs: &[(f64, f64)]) -> f64 {
    let mean = pairs.iter().map(|pair| pair.0).sum::<f64>() / pairs.len() as f64;
    let variance: f64 = pairs.iter().map(|pair| (pair.0 - mean).powi(2)).sum();
    let rest: f64 = pairs.iter().map(|pair| (pair.0 - pair.1).powi(2)).sum();
    if variance > 0.0 {
        1.0 - rest / variance
    } else {
        0.0
    }
}

/// Middle of sorted values.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
    (sorted[low] + sorted[high]) / 2.0
}

/// The value that `fraction` of values (in any order) do not exceed, counted so that it holds for one more of their kind.
pub(crate) fn quantile(mut values: Vec<f64>, fraction: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = ((values.len() + 1) as f64 * fraction).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_a_small_case_by_hand() {
        let score = Score::new(&[(1.0, 1.1), (2.0, 1.8), (4.0, 4.0)]).unwrap();
        assert!((score.mse - 0.05 / 3.0).abs() < 1e-12);
        assert!((score.mae - 0.1).abs() < 1e-12);
        assert!((score.mean_percent_error - 20.0 / 3.0).abs() < 1e-9);
        assert!((score.median_percent_error - 10.0).abs() < 1e-9);
        // Variance about 7/3 is 14/3.
        assert!((score.r2 - (1.0 - 0.05 / (14.0 / 3.0))).abs() < 1e-12);
        assert!(Score::new(&[]).is_none());
    }

    #[test]
    fn quantile_counts_the_one_that_is_to_come() {
        let values: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!(quantile(values.clone(), 0.9), Some(9.0));
        assert_eq!(quantile(values, 0.5), Some(5.0));
        assert_eq!(quantile(Vec::new(), 0.9), None);
    }
}
