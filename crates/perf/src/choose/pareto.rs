//! The Pareto front: the configurations that no other beats in time and energy at once.

use crate::predict::{KernelConfig, Prediction};

/// The configurations that none beats in time and energy at once, by growing time. Without energy, the fastest.
pub fn pareto<'a>(ranked: &[(&'a KernelConfig, Prediction)]) -> Vec<(&'a KernelConfig, Prediction)> {
    let mut by_time: Vec<_> = ranked.to_vec();
    by_time.sort_by(|left, right| left.1.time_s.value.total_cmp(&right.1.time_s.value));
    let mut least = f64::INFINITY;
    by_time.retain(|(_, prediction)| {
        let energy = prediction.energy_j.map_or(f64::MAX, |energy| energy.value);
        let better = energy < least;
        least = least.min(energy);
        better
    });
    by_time
}
