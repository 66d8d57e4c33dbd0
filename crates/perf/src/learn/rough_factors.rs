//! Fits the factors of the rough time and of the rough power, each pulled towards a prior.

use super::least_squares::fit;
use crate::predict::physics::{NUM_RATES, PowerFactors};

/// The prior: the machine's own, then what an H200 takes on average.
const PRIOR: PowerFactors = [1.2, 0.3, 1.0, 1.0, 1.0, 0.3, 0.5, 0.1, 0.3];

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
