//! Adds the items of a workload up, batch size by batch size.

use super::answer::{BatchCost, Cost};
use super::assumptions::assumptions;
use super::items::{energy, product_lines, time};
use super::memory::Memory;
use super::network::Network;
use super::price::Prices;
use super::sum::scaled;
use super::workload::{Phase, Request};
use super::{estimate, threads};
use crate::error::PerfError;
use crate::machine::Machine;
use crate::predict::Interval;

/// Products that are listed with their share.
const MOST_EXPENSIVE: usize = 10;

/// Prices `request` for `network` on `machine`, whose products cost `prices`.
///
/// # Errors
/// A request that cannot be ([`Request::check`]), a product that the prices know nothing of.
pub fn cost(
    network: &Network,
    machine: &Machine,
    request: &Request,
    prices: &mut Prices<'_>,
) -> Result<Cost, PerfError> {
    request.check(network)?;
    let threads = prices.threads();
    let limited = threads.map(|threads| threads::limited(machine, threads));
    let limited = limited.as_ref().unwrap_or(machine);
    let batches = request
        .batches
        .iter()
        .map(|&batch| batch_cost(network, limited, request, batch, prices));
    Ok(Cost {
        model: network.name.clone(),
        machine: machine.name.clone(),
        threads,
        scheme: request.scheme,
        head_scheme: request.head_scheme,
        prompt_tokens: request.prompt_tokens,
        generate_tokens: request.generate_tokens,
        step_tokens: request.step_tokens,
        batches: batches.collect::<Result<_, _>>()?,
        assumptions: assumptions(machine, limited, request, threads),
    })
}

fn batch_cost(
    network: &Network,
    machine: &Machine,
    request: &Request,
    batch: usize,
    prices: &mut Prices<'_>,
) -> Result<BatchCost, PerfError> {
    let mut lines = Vec::new();
    for phase in [Phase::Prompt, Phase::Decode] {
        let mut products = product_lines(network, request, batch, phase, prices)?;
        let estimates = estimate::lines(network, machine, request, batch, phase, &products);
        products.extend(estimates);
        lines.extend(products);
    }
    let total = time(&lines, None);
    for line in &mut lines {
        line.share = line.time_s.value / total.value;
    }
    lines.sort_by(|a, b| b.time_s.value.total_cmp(&a.time_s.value));
    let generated = batch * request.generate_tokens;
    let decoded = batch * request.decode_steps();
    let each = |energy: Option<Interval>, tokens: usize| {
        energy
            .filter(|_| tokens > 0)
            .map(|energy| scaled(energy, 1.0 / tokens as f64))
    };
    let decode_tokens_per_s = (decoded > 0).then(|| time(&lines, Some(Phase::Decode)).rate(decoded as f64));
    let (estimates, products): (Vec<_>, Vec<_>) = lines.iter().cloned().partition(|line| line.estimate);
    Ok(BatchCost {
        batch,
        time_to_first_token_s: time(&lines, Some(Phase::Prompt)),
        decode_tokens_per_s,
        total_time_s: total,
        joules_per_token: each(energy(&lines, Some(Phase::Decode)), decoded),
        prompt_joules_per_token: each(energy(&lines, Some(Phase::Prompt)), batch * request.prompt_tokens),
        total_joules_per_token: each(energy(&lines, None), generated),
        memory: Memory::new(network, machine, request, batch),
        estimated_share: estimates.iter().map(|line| line.share).sum(),
        // A sum of nothing would be -0.
        extrapolated_share: products
            .iter()
            .filter(|line| line.extrapolated)
            .fold(0.0, |sum, line| sum + line.share),
        products: products.into_iter().take(MOST_EXPENSIVE).collect(),
        estimates,
    })
}
