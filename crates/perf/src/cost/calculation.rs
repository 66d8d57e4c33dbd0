//! Adds the items of a workload up, batch size by batch size.

use super::answer::{BatchCost, CostItem, NetworkCost};
use super::assumptions::assumptions;
use super::correction::Correction;
use super::memory::Memory;
use super::network::Network;
use super::phase::{self, energy, scaled, time};
use super::price::Prices;
use super::threads;
use super::workload::{Phase, Workload};
use crate::error::PerfError;
use crate::machine::Machine;
use crate::predict::Interval;

/// Products that are listed with their share.
const MOST_EXPENSIVE: usize = 10;

/// Prices `workload` for `network` on `machine`, whose products cost `prices`.
///
/// # Errors
/// A request that cannot be ([`Workload::check`]), a product that the prices know nothing of.
pub fn cost(
    network: &Network,
    machine: &Machine,
    workload: &Workload,
    prices: &mut Prices<'_>,
) -> Result<NetworkCost, PerfError> {
    workload.check(network)?;
    let threads = prices.threads();
    let limited = threads.map(|threads| threads::limited(machine, threads));
    let limited = limited.as_ref().unwrap_or(machine);
    let correction = Correction::new(machine, workload, prices);
    let batches = workload
        .batches
        .iter()
        .map(|&batch| batch_cost(network, limited, workload, (batch, &correction), prices));
    Ok(NetworkCost {
        model: network.name.clone(),
        machine: machine.name.clone(),
        threads,
        scheme: workload.scheme,
        head_scheme: workload.head_scheme,
        prompt_tokens: workload.prompt_tokens,
        generate_tokens: workload.generate_tokens,
        step_tokens: workload.step_tokens,
        batches: batches.collect::<Result<_, _>>()?,
        assumptions: assumptions(machine, limited, workload, threads)
            .into_iter()
            .chain(correction.assumption(network, workload))
            .collect(),
    })
}

fn batch_cost(
    network: &Network,
    machine: &Machine,
    workload: &Workload,
    (batch, correction): (usize, &Correction),
    prices: &mut Prices<'_>,
) -> Result<BatchCost, PerfError> {
    let (items, total) = items(network, machine, workload, (batch, correction), prices)?;
    let generated = batch * workload.generate_tokens;
    let decoded = batch * workload.decode_steps();
    let each = |energy: Option<Interval>, tokens: usize| {
        energy
            .filter(|_| tokens > 0)
            .map(|energy| scaled(energy, 1.0 / tokens as f64))
    };
    let decode_tokens_per_s = (decoded > 0).then(|| time(&items, Some(Phase::Decode)).rate(decoded as f64));
    let (estimates, products): (Vec<_>, Vec<_>) = items.iter().cloned().partition(|item| item.estimate);
    Ok(BatchCost {
        batch,
        time_to_first_token_s: time(&items, Some(Phase::Prompt)),
        decode_tokens_per_s,
        total_time_s: total,
        joules_per_token: each(energy(&items, Some(Phase::Decode)), decoded),
        prompt_joules_per_token: each(
            energy(&items, Some(Phase::Prompt)),
            batch * workload.prompt_tokens,
        ),
        total_joules_per_token: each(energy(&items, None), generated),
        memory: Memory::new(network, machine, workload, batch),
        estimated_share: estimates.iter().map(|item| item.share).sum(),
        // A sum of nothing would be -0.
        extrapolated_share: products
            .iter()
            .filter(|item| item.extrapolated)
            .fold(0.0, |sum, item| sum + item.share),
        products: products.into_iter().take(MOST_EXPENSIVE).collect(),
        estimates,
    })
}

/// What a batch spends its time on, in both phases, the longest first, and the sum.
fn items(
    network: &Network,
    machine: &Machine,
    workload: &Workload,
    (batch, correction): (usize, &Correction),
    prices: &mut Prices<'_>,
) -> Result<(Vec<CostItem>, Interval), PerfError> {
    let mut items = Vec::new();
    for phase in [Phase::Prompt, Phase::Decode] {
        let of_phase = phase::items(network, machine, workload, (batch, phase), prices)?;
        let factor = correction.of(network, workload, (batch, phase));
        items.extend(of_phase.into_iter().map(|item| CostItem {
            time_s: scaled(item.time_s, factor),
            energy_j: item.energy_j.map(|energy| scaled(energy, factor)),
            ..item
        }));
    }
    let total = time(&items, None);
    for item in &mut items {
        item.share = item.time_s.value / total.value;
    }
    items.sort_by(|a, b| b.time_s.value.total_cmp(&a.time_s.value));
    Ok((items, total))
}
