//! The rough time of a product: a sum of physical terms (start, bytes, operations of the busiest unit, cache, rounds,
//! steps), each with a factor that is fitted for the configuration. The trees learn what the sum leaves, so that a
//! prediction beyond the measured sizes still grows as physics does.

use super::terms::NUM_TERMS;

/// Factors of the terms, none below 0.
pub(crate) type TimeFactors = [f64; NUM_TERMS];

/// The rough time in seconds.
pub(crate) fn rough_time_s(factors: &TimeFactors, terms: &[f64; NUM_TERMS]) -> f64 {
    // A configuration whose factors are all 0, because its terms were in fitting, still takes time.
    weighted_sum(factors, terms).max(1e-9)
}

/// The sum of terms times their factors.
pub(crate) fn weighted_sum<const N: usize>(factors: &[f64; N], terms: &[f64; N]) -> f64 {
    factors
        .iter()
        .zip(terms)
        .map(|(factor, term)| factor * term)
        .sum()
}
