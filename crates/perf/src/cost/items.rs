//! The products of a step as priced items, and sums over items.

use super::answer::Line;
use super::network::{Linear, Network};
use super::price::{Price, Prices};
use super::scheme::Scheme;
use super::sum::{Sum, scaled};
use super::workload::{Phase, Request};
use crate::error::PerfError;
use crate::predict::Interval;

/// Every product of a phase, those of equal shape in one line.
pub(crate) fn product_lines(
    network: &Network,
    request: &Request,
    batch: usize,
    phase: Phase,
    prices: &mut Prices<'_>,
) -> Result<Vec<Line>, PerfError> {
    let mut lines = Vec::new();
    for (step_tokens, num_steps) in request.steps(batch, phase) {
        for linear in &network.linears {
            // Logits are wanted of each sequence's last token only, and of a prompt's last step only.
            let (m, num_steps, scheme) = match linear.head {
                true => (batch, request.head_steps(phase), request.head_scheme),
                false => (step_tokens, num_steps, request.scheme),
            };
            let count = linear.count * num_steps;
            let seen = |line: &Line| line.name == linear.name && line.shape == Some([m, linear.n, linear.k]);
            if count > 0 && !lines.iter().any(seen) {
                let price = prices.of(scheme, [m, linear.n, linear.k]);
                let price = price.map_err(|error| unpriced(linear, m, scheme, error))?;
                lines.push(product_line(linear, m, phase, count, &price));
            }
        }
    }
    Ok(lines)
}

fn unpriced(linear: &Linear, m: usize, scheme: Scheme, error: PerfError) -> PerfError {
    let Linear { name, n, k, head, .. } = linear;
    let option = if *head { "--lm-head" } else { "--scheme" };
    PerfError::Unpriced {
        what: format!("{name} ({m}x{n}x{k} in {scheme}; another {option} may do)"),
        source: Box::new(error),
    }
}

fn product_line(linear: &Linear, m: usize, phase: Phase, count: usize, price: &Price) -> Line {
    let total = |one: Interval| scaled(one, count as f64);
    Line {
        name: linear.name.clone(),
        phase,
        count,
        shape: Some([m, linear.n, linear.k]),
        kernel: price.kernel.clone(),
        config: price.config.clone(),
        estimate: false,
        extrapolated: price.prediction.extrapolated,
        time_s: total(price.prediction.time_s),
        share: 0.0,
        energy_j: price.prediction.energy_j.map(total),
    }
}

pub(crate) fn time(lines: &[Line], phase: Option<Phase>) -> Interval {
    let wanted = lines
        .iter()
        .filter(|line| phase.is_none_or(|phase| line.phase == phase));
    let mut sum = Sum::default();
    wanted.for_each(|line| sum.add(&line.kernel, line.time_s));
    sum.interval()
}

/// `None` when a line has no energy.
pub(crate) fn energy(lines: &[Line], phase: Option<Phase>) -> Option<Interval> {
    let mut wanted = lines
        .iter()
        .filter(|line| phase.is_none_or(|phase| line.phase == phase));
    let sum = wanted.try_fold(Sum::default(), |mut sum, line| {
        sum.add(&line.kernel, line.energy_j?);
        Some(sum)
    })?;
    Some(sum.interval())
}
