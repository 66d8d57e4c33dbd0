//! How values are spread, beyond their mean: what most of them stay below, the largest, and where in a window they stand.

use serde::Serialize;

use super::moments::Moments;

/// Values that so many per cent of all values do not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// 50 %.
    pub median: f64,
    /// 90 %.
    pub p90: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Those of `values`, in any order; zeros where there are none. Between two values a percentile is interpolated, as
    /// llama.cpp's perplexity tool does it.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * values.len().saturating_sub(1) as f64;
            let (low, part) = (place as usize, place.fract());
            let value = |index: usize| values.get(index).or(values.last()).copied().unwrap_or(0.0);
            (1.0 - part) * value(low) + part * value(low + 1)
        };
        Self {
            median: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
        }
    }
}

/// The mean over positions `first..=last` of all windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PositionMean {
    /// The first position, from 0.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// The mean.
    pub mean: f64,
}

/// Means over positions that lie between two powers of two: 0, 1, 2 to 3, 4 to 7 and so on.
#[derive(Debug, Clone, Default)]
pub(super) struct ByPosition {
    spans: Vec<Moments>,
}

impl ByPosition {
    /// Takes a value at `position` of a window.
    pub(super) fn add(&mut self, position: usize, value: f64) {
        let span = position.checked_ilog2().map_or(0, |power| power as usize + 1);
        if span >= self.spans.len() {
            self.spans.resize(span + 1, Moments::default());
        }
        self.spans[span].add(value);
    }

    /// The means, of windows of `context` tokens.
    pub(super) fn means(&self, context: usize) -> Vec<PositionMean> {
        let span = |(index, moments): (usize, &Moments)| PositionMean {
            first: (1 << index) >> 1,
            last: ((1 << index) - 1).min(context.saturating_sub(1)),
            mean: moments.mean,
        };
        self.spans.iter().enumerate().map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_between_neighbours() {
        let percentiles = Percentiles::of((0..=1000).rev().map(f64::from).collect());
        let expected = Percentiles {
            median: 500.0,
            p90: 900.0,
            p95: 950.0,
            p99: 990.0,
            p99_9: 999.0,
            max: 1000.0,
        };
        assert_eq!(percentiles, expected);
        assert_eq!(Percentiles::of(vec![1.0, 0.0]).median, 0.5);
        assert_eq!(Percentiles::of(vec![3.0]).p99_9, 3.0);
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn positions_fall_into_spans_of_powers_of_two() {
        let mut by_position = ByPosition::default();
        for position in 0..6 {
            by_position.add(position, position as f64);
        }
        let means = by_position.means(6);
        let spans: Vec<_> = means
            .iter()
            .map(|span| (span.first, span.last, span.mean))
            .collect();
        assert_eq!(spans, [(0, 0, 0.0), (1, 1, 1.0), (2, 3, 2.5), (4, 5, 4.5)]);
    }
}
