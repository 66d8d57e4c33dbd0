//! Mixtures of experts: which experts a token goes to, and what their outputs add up to.

use super::{LANES, exp, sigmoid, sum_lanes};
use crate::{HostRouting, MAX_EXPERTS, RoutedToken, RoutingRule, RoutingScoring};

/// Chooses experts by the logits of a router, and their weights; both by ascending expert.
///
/// The largest keys are chosen, of equal ones the first, and NaN counts as -inf. A key is a logit, or `sigmoid(logit) + bias`.
/// - Softmax: numerators are `exp(logit - max)`, and a weight is a numerator over the sum of all (in 16 lanes), or over the sum
///   of the chosen ones.
/// - Sigmoid: a weight is the sigmoid of the logit, or that over the sum of the chosen ones and 1e-20.
///
/// The chosen ones are added by ascending expert, one after the other; then the weight is multiplied by the rule's scale.
#[inline(always)]
pub fn route(
    logits: &[f32],
    bias: Option<&[f32]>,
    rule: &RoutingRule,
    experts: &mut [u32],
    weights: &mut [f32],
) {
    choose(logits, bias, rule, experts);
    let scores = experts.iter().map(|&expert| logits[expert as usize]);
    let denominator = match rule.scoring {
        RoutingScoring::Softmax => {
            let max = logits
                .iter()
                .fold(f32::NEG_INFINITY, |max, &v| if v > max { v } else { max });
            weights
                .iter_mut()
                .zip(scores)
                .for_each(|(weight, logit)| *weight = exp(logit - max));
            if rule.normalized {
                sum(weights)
            } else {
                sum_of_exp(logits, max)
            }
        }
        RoutingScoring::Sigmoid => {
            weights
                .iter_mut()
                .zip(scores)
                .for_each(|(weight, logit)| *weight = sigmoid(logit));
            if rule.normalized {
                sum(weights) + 1e-20
            } else {
                1.0
            }
        }
    };
    for weight in weights {
        *weight = *weight / denominator * rule.scale;
    }
}

/// Chooses the experts of a token by [`route`] and, where `logits` has one more than there are experts, gates the shared one.
#[inline(always)]
pub fn route_token(
    token: &mut RoutedToken<'_>,
    logits: &[f32],
    bias: Option<&[f32]>,
    rule: &RoutingRule,
    num_experts: usize,
) {
    let (logits, gate) = logits.split_at(num_experts);
    route(logits, bias, rule, token.experts, token.weights);
    *token.shared = gate.first().map_or(1.0, |&gate| sigmoid(gate));
}

/// The experts with the largest keys, ascending.
#[inline(always)]
fn choose(logits: &[f32], bias: Option<&[f32]>, rule: &RoutingRule, experts: &mut [u32]) {
    let mut keys = [0.0; MAX_EXPERTS];
    let keys = &mut keys[..logits.len()];
    for (expert, (key, &logit)) in keys.iter_mut().zip(logits).enumerate() {
        *key = match rule.scoring {
            RoutingScoring::Softmax => logit,
            RoutingScoring::Sigmoid => sigmoid(logit) + bias.map_or(0.0, |bias| bias[expert]),
        };
        if key.is_nan() {
            *key = f32::NEG_INFINITY;
        }
    }
    for chosen in experts.iter_mut() {
        // What was chosen has no key: NaN is above nothing.
        let free = keys.iter().enumerate().filter(|(_, key)| !key.is_nan());
        let best = free.reduce(|best, other| if other.1 > best.1 { other } else { best });
        let expert = best.map_or(0, |(expert, _)| expert);
        keys[expert] = f32::NAN;
        *chosen = expert as u32;
    }
    experts.sort_unstable();
}

#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, value| sum + value)
}

#[inline(always)]
fn sum_of_exp(logits: &[f32], max: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, logit) in logits.iter().enumerate() {
        lanes[i % LANES] += exp(logit - max);
    }
    sum_lanes(lanes)
}

/// What the experts of a token add to its row of the stream: `sum = shared_weight * shared`, or 0 without a shared expert; for its
/// experts in ascending order `sum = fma(weight, y[row], sum)`; `x += sum`. `y` has `x.len()` columns.
#[inline(always)]
pub fn combine(x: &mut [f32], y: &[f32], shared: Option<&[f32]>, routing: &HostRouting, token: usize) {
    let columns = x.len();
    let weight_of_shared = routing.shared(token);
    for (column, x) in x.iter_mut().enumerate() {
        let first = shared.map_or(0.0, |shared| weight_of_shared * shared[column]);
        *x += routing.of_token(token).fold(first, |sum, (weight, row)| {
            weight.mul_add(y[row * columns + column], sum)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(logits: &[f32], bias: Option<&[f32]>, rule: RoutingRule) -> (Vec<u32>, Vec<f32>) {
        let (mut experts, mut weights) = (vec![0; rule.num_chosen], vec![0.0; rule.num_chosen]);
        route(logits, bias, &rule, &mut experts, &mut weights);
        (experts, weights)
    }

    const SOFTMAX: RoutingRule = RoutingRule {
        num_chosen: 2,
        scoring: RoutingScoring::Softmax,
        normalized: true,
        scale: 1.0,
    };

    #[test]
    fn the_largest_logits_are_chosen_and_of_equal_ones_the_first() {
        assert_eq!(
            routed(&[1.0, 3.0, 3.0, 3.0], None, SOFTMAX),
            (vec![1, 2], vec![0.5, 0.5])
        );
        let (experts, weights) = routed(&[f32::NAN, f32::NEG_INFINITY, f32::NAN], None, SOFTMAX);
        assert_eq!(experts, [0, 1]);
        assert!(weights[0].is_nan());
    }

    #[test]
    fn weights_are_parts_of_all_experts_or_of_the_chosen_ones() {
        let logits = [0.0, 2.0f32.ln(), 4.0f32.ln(), 0.0];
        let near = |got: Vec<f32>, expected: [f32; 2]| {
            got.iter()
                .zip(expected)
                .all(|(got, expected)| (got - expected).abs() < 1e-6)
        };
        let (experts, weights) = routed(&logits, None, SOFTMAX);
        assert_eq!(experts, [1, 2]);
        assert!(near(weights, [1.0 / 3.0, 2.0 / 3.0]));
        let of_all = RoutingRule {
            normalized: false,
            scale: 2.0,
            ..SOFTMAX
        };
        assert!(near(routed(&logits, None, of_all).1, [0.5, 1.0]));
    }

    #[test]
    fn a_bias_chooses_and_does_not_weigh() {
        let rule = RoutingRule {
            scoring: RoutingScoring::Sigmoid,
            normalized: false,
            ..SOFTMAX
        };
        let (experts, weights) = routed(&[0.0, 0.0, 9.0], Some(&[1.0, 2.0, -1.0]), rule);
        assert_eq!((experts, weights), (vec![0, 1], vec![0.5, 0.5]));
    }
}
