//! Everything that a phase spends its time on.

use super::estimate;
use super::products::product_items;
use crate::cost::answer::CostItem;
use crate::cost::network::Network;
use crate::cost::price::Prices;
use crate::cost::workload::{Phase, Workload};
use crate::error::PerfError;
use crate::machine::Machine;

/// The products of a phase, then the estimates.
pub(crate) fn items(
    network: &Network,
    machine: &Machine,
    workload: &Workload,
    (batch, phase): (usize, Phase),
    prices: &mut Prices<'_>,
) -> Result<Vec<CostItem>, PerfError> {
    let mut items = product_items(network, workload, batch, phase, prices)?;
    let estimates = estimate::items(network, machine, workload, batch, phase, &items);
    items.extend(estimates);
    Ok(items)
}
