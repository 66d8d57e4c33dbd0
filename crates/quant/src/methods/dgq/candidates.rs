//! The candidates of both phases: by what ratios ranges are shrunk.

/// Candidates of phase 1.
pub const NUM_GROUP_RATIOS: usize = 20;

/// Candidates of phase 2.
pub const NUM_CHANNEL_RATIOS: usize = 80;

/// Candidates of phase 2 that are judged with the full Gram matrix after an approximation has ranked all.
pub const SHORTLIST: usize = 8;

/// Ratio `index` of phase 1: 1.009 down to 0.80.
pub fn group_ratio(index: usize) -> f32 {
    (1.02 - 0.22 * (index + 1) as f64 / NUM_GROUP_RATIOS as f64) as f32
}

/// Ratio `index` of phase 2: 1.00975 down to 0.20.
pub fn channel_ratio(index: usize) -> f32 {
    (1.02 - 0.82 * (index + 1) as f64 / NUM_CHANNEL_RATIOS as f64) as f32
}

/// Index of the least objective, the first among equals, which has the larger range.
pub fn least(objectives: &[f64]) -> usize {
    let mut best = 0;
    for (index, objective) in objectives.iter().enumerate() {
        if *objective < objectives[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_ratios_run_from_slightly_more_than_the_range_to_four_fifths_of_it() {
        assert!((group_ratio(0) - 1.009).abs() < 1e-6);
        assert!((group_ratio(19) - 0.80).abs() < 1e-6);
    }

    #[test]
    fn channel_ratios_run_from_slightly_more_than_the_row_to_a_fifth_of_it() {
        assert!((channel_ratio(0) - 1.00975).abs() < 1e-6);
        assert!((channel_ratio(79) - 0.20).abs() < 1e-6);
    }

    #[test]
    fn ties_keep_the_first_candidate() {
        assert_eq!(least(&[2.0, 1.0, 1.0]), 1);
        assert_eq!(least(&[f64::NAN, f64::NAN]), 0);
    }
}
