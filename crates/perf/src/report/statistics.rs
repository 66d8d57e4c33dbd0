//! Quantiles and rank correlations.

/// The value below which `fraction` of `sorted` lie.
pub(crate) fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = fraction * last as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let (left, right) = (sorted[low], sorted[(low + 1).min(last)]);
    left + (right - left) * part
}

/// Ascending, without what is no number.
pub(crate) fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Spearman's rank correlation, over the pairs that are both there; NaN where one side does not vary.
pub(crate) fn rank_correlation(left: &[Option<f64>], right: &[Option<f64>]) -> f64 {
    let pairs: Vec<(f64, f64)> = left
        .iter()
        .zip(right)
        .filter_map(|(left, right)| Some(((*left)?, (*right)?)))
        .collect();
    let (left, right): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    correlation(&ranks(&left), &ranks(&right))
}

/// Places in ascending order; equal values share the mean of their places.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let first = order.partition_point(|&index| values[index] < values[tied[0]]);
        let rank = first as f64 + (tied.len() - 1) as f64 / 2.0;
        tied.iter().for_each(|&index| ranks[index] = rank);
    }
    ranks
}

pub(crate) fn correlation(left: &[f64], right: &[f64]) -> f64 {
    let count = left.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
    let (mean_left, mean_right) = (mean(left), mean(right));
    let (mut both, mut square_left, mut square_right) = (0.0, 0.0, 0.0);
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (left - mean_left, right - mean_right);
        both += left * right;
        square_left += left * left;
        square_right += right * right;
    }
    // No rank differs: 0 / 0.
    both / (square_left * square_right).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(sorted([4.0, 1.0, f64::NAN, 2.0]), [1.0, 2.0, 4.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn ranks_see_order_and_not_size() {
        let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        let left = some(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(rank_correlation(&left, &some(&[1.0, 10.0, 1e6, 1e9])), 1.0);
        assert_eq!(rank_correlation(&left, &some(&[4.0, 3.0, 2.0, 1.0])), -1.0);
        assert!(rank_correlation(&left, &some(&[2.0; 4])).is_nan());
        // By hand: ranks 0.5, 0.5, 2, 3 against 0..4: sum of products 4.5, squares 5 and 4.5.
        let tied = rank_correlation(&left, &some(&[1.0, 1.0, 2.0, 3.0]));
        assert!((tied - 4.5 / (5.0f64 * 4.5).sqrt()).abs() < 1e-12, "{tied}");
    }

    #[test]
    fn pairs_with_one_side_missing_do_not_count() {
        let left = [Some(1.0), None, Some(2.0), Some(3.0)];
        let right = [Some(1.0), Some(9.0), None, Some(5.0)];
        assert_eq!(rank_correlation(&left, &right), 1.0);
    }
}
