//! Routers and the sums of experts, compiled for each instruction set.

use dualgrain_device::{HostRouting, RoutedToken, RoutingRule, naive};

use crate::isa::per_isa;

/// Columns that are summed together.
const COLUMNS: usize = 64;

per_isa! {
    /// Chooses the experts of a token.
    pub(crate) fn fill(
        token: &mut RoutedToken<'_>,
        logits: &[f32],
        bias: Option<&[f32]>,
        rule: &RoutingRule,
        num_experts: usize,
    ) = naive::route_token
}

per_isa! {
    /// Adds to `x` what the experts of a token gave, by the rule of `naive::combine`.
    pub(crate) fn combine(
        x: &mut [f32],
        y: &[f32],
        shared: Option<&[f32]>,
        routing: &HostRouting,
        token: usize,
    ) = combine_row
}

#[inline(always)]
fn combine_row(x: &mut [f32], y: &[f32], shared: Option<&[f32]>, routing: &HostRouting, token: usize) {
    let columns = x.len();
    let weight_of_shared = routing.shared(token);
    for (run, x) in x.chunks_mut(COLUMNS).enumerate() {
        let first = run * COLUMNS;
        let mut sums = [0.0; COLUMNS];
        if let Some(shared) = shared {
            for (sum, value) in sums.iter_mut().zip(&shared[first..first + x.len()]) {
                *sum = weight_of_shared * value;
            }
        }
        for (weight, row) in routing.of_token(token) {
            let y = &y[row * columns + first..][..x.len()];
            for (sum, value) in sums.iter_mut().zip(y) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
        for (x, sum) in x.iter_mut().zip(sums) {
            *x += sum;
        }
    }
}
