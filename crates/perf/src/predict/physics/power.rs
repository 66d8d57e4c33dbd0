//! The rough power of a product: what the machine draws by itself, plus the energies of moving and computing over the
//! time they take, each with a factor that is fitted for the kernel. The trees learn what the sum leaves. With measured
//! times the median error of the trees on unseen shapes of an H200 is a sixth less than without the rough power.

use super::terms::{CACHED, Physics, WRITTEN};
use super::time::weighted_sum;
use crate::machine::Machine;

/// Number of the rates that a power is roughly a sum of.
pub(crate) const NUM_RATES: usize = 9;
/// The unit of the rates, in watts: about what a machine draws.
const UNIT_W: f64 = 100.0;
/// The driver holds the mean power over its own window to the limit; the power of one energy window may lie a little above.
const ABOVE_LIMIT: f64 = 1.02;

/// Factors of the rates, none below 0.
pub(crate) type PowerFactors = [f64; NUM_RATES];

/// What happens per second, as fractions of the machine's ceilings, times 100 W.
pub(crate) fn rates(physics: &Physics, time_s: f64) -> [f64; NUM_RATES] {
    let roofline = &physics.roofline;
    let tiling = &physics.tiling;
    [
        // The machine itself, and its units while they have work.
        1.0,
        tiling.busy_units(),
        // Memory that is read and written, and the last-level cache.
        roofline.memory_s / time_s,
        roofline.output_s() / time_s,
        physics.terms[CACHED] / time_s,
        // Operations of the product, operations of its tiles beyond it too, and the preparation of weights.
        roofline.compute_s / time_s,
        roofline.compute_s / tiling.efficiency().max(1e-3) / time_s,
        tiling.prepared_s / time_s,
        physics.terms[WRITTEN] / time_s,
    ]
    .map(|rate| rate * UNIT_W)
}

/// The rough power in watts, at most what the machine may draw.
pub(crate) fn rough_power_w(factors: &PowerFactors, rates: &[f64; NUM_RATES], machine: &Machine) -> f64 {
    let most = machine
        .power_limit_w
        .map_or(f64::INFINITY, |limit| limit * ABOVE_LIMIT);
    weighted_sum(factors, rates).clamp(1.0, most.max(1.0))
}
