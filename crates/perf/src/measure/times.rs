//! Times of repetitions: their median and quartiles, and whether they scatter too much.

use crate::data::{QualityFlag, Row};

/// Spread of the quartiles over the median beyond which repetitions count as unsteady.
const MOST_SPREAD: f64 = 0.12;

/// Median and quartiles of times that need not be sorted; nothing of nothing.
pub(crate) fn quartiles(mut times: Vec<f64>) -> Option<[f64; 3]> {
    times.sort_by(f64::total_cmp);
    let last = times.len().checked_sub(1)?;
    let at = |fraction: f64| {
        let place = fraction * last as f64;
        let (low, high) = (times[place.floor() as usize], times[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    Some([at(0.25), at(0.5), at(0.75)])
}

/// Writes median and quartiles into a row.
pub(crate) fn set_times(row: &mut Row, times: Vec<f64>) {
    row.runs = times.len();
    let Some([q1, median, q3]) = quartiles(times) else {
        return;
    };
    (row.time_q1_s, row.time_s, row.time_q3_s) = (Some(q1), Some(median), Some(q3));
    if q3 - q1 > MOST_SPREAD * median {
        row.flag = Some(QualityFlag::Unsteady);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours_and_a_single_time_is_all_three() {
        assert_eq!(quartiles(vec![5.0, 1.0, 2.0, 4.0]), Some([1.75, 3.0, 4.25]));
        assert_eq!(quartiles(vec![7.0]), Some([7.0; 3]));
        assert_eq!(quartiles(Vec::new()), None);
    }

    #[test]
    fn repetitions_far_apart_are_marked() {
        let mut row = Row::blank("sgemm_tiled", (1, 1, 1));
        set_times(&mut row, vec![1.0, 1.01, 1.02]);
        assert_eq!((row.flag, row.time_s), (None, Some(1.01)));
        set_times(&mut row, vec![1.0, 2.0, 3.0]);
        assert_eq!(row.flag, Some(QualityFlag::Unsteady));
    }
}
