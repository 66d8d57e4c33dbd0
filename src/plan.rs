//! `quantize --plan`: what the work and the result will cost.

use anyhow::{Result, bail};
use dualgrain_quant::QuantJob;

use crate::arguments::Common;
use crate::terminal::Terminal;

/// Prints the plan of `job`.
pub fn run(_job: &QuantJob, _common: &Common, _terminal: &Terminal) -> Result<()> {
    bail!("not yet")
}
