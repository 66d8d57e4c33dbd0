//! The rough power of a product: what the machine draws by itself, and energies of moving and computing over the time they
//! take, with factors fitted for each kernel. Trees learn what it leaves. With measured times the trees' median error on
//! unseen shapes of an H200 is a sixth less than without it.

use super::features::Physics;
use super::rough_time::{fit, weigh};
use crate::machine::Machine;

/// What a power is roughly a sum of.
pub(crate) const NUM_RATES: usize = 9;
/// Watts by the unit of the rates: about what a machine draws.
const UNIT_W: f64 = 100.0;
/// Factors of the rates, none below 0.
pub(crate) type PowerFactors = [f64; NUM_RATES];
/// The prior: the machine's own, then what an H200 takes on average.
const PRIOR: PowerFactors = [1.2, 0.3, 1.0, 1.0, 1.0, 0.3, 0.5, 0.1, 0.3];
/// The driver holds the mean over its own window to the limit; single regions are a little above.
const ABOVE_LIMIT: f64 = 1.02;

/// What happens a second, as shares of the machine's ceilings, by 100 W.
pub(crate) fn rates(physics: &Physics, time_s: f64) -> [f64; NUM_RATES] {
    let work = &physics.work;
    let tiling = &physics.tiling;
    [
        // The machine itself, and its units when they are busy at all.
        1.0,
        tiling.busy_units(),
        // Memory read and written, the cache that all units share.
        work.memory_s / time_s,
        work.output_s() / time_s,
        physics.terms[3] / time_s,
        // Operations; those of tiles that stand over; weights made ready once for every tile of tokens.
        work.compute_s / time_s,
        work.compute_s / tiling.efficiency().max(1e-3) / time_s,
        tiling.made_ready_s / time_s,
        physics.terms[7] / time_s,
    ]
    .map(|rate| rate * UNIT_W)
}

/// Watts, at most what the machine may draw.
pub(crate) fn base_w(factors: &PowerFactors, rates: &[f64; NUM_RATES], machine: &Machine) -> f64 {
    let most = machine
        .power_limit_w
        .map_or(f64::INFINITY, |limit| limit * ABOVE_LIMIT);
    weigh(factors, rates).clamp(1.0, most.max(1.0))
}

/// A row of rates with its watts, and the number of its kernel.
pub(crate) type PowerRow = ([f64; NUM_RATES], f64, usize);

/// Factors of each kernel, pulled towards those of all.
pub(crate) fn fit_power(rows: &[PowerRow], num_kernels: usize) -> Vec<PowerFactors> {
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<([f64; NUM_RATES], f64)> {
        let rows = rows.iter().filter(|(.., kernel)| wanted(*kernel));
        rows.map(|(rates, power_w, _)| (*rates, *power_w)).collect()
    };
    let all = fit(&of(&|_| true), &PRIOR);
    (0..num_kernels)
        .map(|number| fit(&of(&|kernel| kernel == number), &all))
        .collect()
}
