//! The products of a step as priced items, and sums over items.

use super::sum::{IntervalSum, scaled};
use crate::cost::answer::CostItem;
use crate::cost::network::{Linear, Network};
use crate::cost::price::{Price, Prices};
use crate::cost::scheme::Scheme;
use crate::cost::workload::{Phase, Workload};
use crate::error::PerfError;
use crate::predict::Interval;

/// Every product of a phase, those of equal shape in one line.
pub(crate) fn product_items(
    network: &Network,
    workload: &Workload,
    batch: usize,
    phase: Phase,
    prices: &mut Prices<'_>,
) -> Result<Vec<CostItem>, PerfError> {
    let mut items = Vec::new();
    for (step_tokens, num_steps) in workload.steps(batch, phase) {
        for linear in &network.linears {
            // Logits are wanted of each sequence's last token only, and of a prompt's last step only.
            let (m, num_steps, scheme) = match linear.head {
                true => (batch, workload.head_steps(phase), workload.head_scheme),
                false => (step_tokens, num_steps, workload.scheme),
            };
            for (count, m) in linear.in_step(m) {
                add_product(
                    &mut items,
                    linear,
                    (m, phase, count * num_steps),
                    (scheme, prices),
                )?;
            }
        }
    }
    Ok(items)
}

/// Adds a product that runs `count` times, to the line of the same shape where there is one.
fn add_product(
    items: &mut Vec<CostItem>,
    linear: &Linear,
    (m, phase, count): (usize, Phase, usize),
    (scheme, prices): (Scheme, &mut Prices<'_>),
) -> Result<(), PerfError> {
    let shape = [m, linear.n, linear.k];
    let seen = |item: &CostItem| item.name == linear.name && item.shape == Some(shape);
    let seen = items.iter().position(seen);
    if count == 0 || (seen.is_some() && linear.choice.is_none()) {
        return Ok(());
    }
    let price = prices.of(scheme, shape);
    let price = price.map_err(|error| unpriced(linear, m, scheme, error))?;
    match seen.and_then(|place| items.get_mut(place)) {
        // Experts have as many rows in steps of about as many tokens.
        Some(item) => *item = product_item(linear, m, phase, item.count + count, &price),
        None => items.push(product_item(linear, m, phase, count, &price)),
    }
    Ok(())
}

fn unpriced(linear: &Linear, m: usize, scheme: Scheme, error: PerfError) -> PerfError {
    let Linear { name, n, k, head, .. } = linear;
    let option = if *head { "--lm-head" } else { "--scheme" };
    PerfError::Unpriced {
        what: format!("{name} ({m}x{n}x{k} in {scheme}; another {option} may do)"),
        source: Box::new(error),
    }
}

fn product_item(linear: &Linear, m: usize, phase: Phase, count: usize, price: &Price) -> CostItem {
    let total = |one: Interval| scaled(one, count as f64);
    CostItem {
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

pub(crate) fn time(items: &[CostItem], phase: Option<Phase>) -> Interval {
    let wanted = items
        .iter()
        .filter(|item| phase.is_none_or(|phase| item.phase == phase));
    let mut sum = IntervalSum::default();
    wanted.for_each(|item| sum.add(&item.kernel, item.time_s));
    sum.interval()
}

/// `None` when a line has no energy.
pub(crate) fn energy(items: &[CostItem], phase: Option<Phase>) -> Option<Interval> {
    let mut wanted = items
        .iter()
        .filter(|item| phase.is_none_or(|phase| item.phase == phase));
    let sum = wanted.try_fold(IntervalSum::default(), |mut sum, item| {
        sum.add(&item.kernel, item.energy_j?);
        Some(sum)
    })?;
    Some(sum.interval())
}
