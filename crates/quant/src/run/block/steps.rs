//! One block from float to 4 bits: its linears in order of execution, each on what the ones before it give.
//!
//! For each linear a pass over the calibration windows gives the statistics of its input; then
//! [`PartialBlock::quantize_linear`] smooths, quantizes and puts the result in place, so that the next pass runs it.
//!
//! What makes a smoothed input is quantized before the scales are known. A row's codes do not change when the row is
//! multiplied by a number: only s1 does. So up (and v) are quantized first, the INT8 model is run through them, and when
//! the abs-maxima of their outputs are known, the smoothing scales go into s1 and the bias. That is exactly what
//! smoothing before quantizing would give, without a pass in float.

use dualgrain_device::Statistics;
use dualgrain_engine::{LinearId, Role};

use crate::calibrate::companion::Companion;
use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::passes;
use crate::error::QuantError;
use crate::run::block::experts::quantize_experts;
use crate::run::block::partial_block::PartialBlock;
use crate::run::block::quantized_block::QuantizedBlock;
use crate::run::context::RunContext;

/// Quantizes block `layer` and moves the hidden states to its output, those of the original model too.
///
/// # Errors
/// See [`QuantError`].
pub fn quantize_block<D: Statistics>(
    run: &RunContext<'_, D>,
    (states, mut companion): (&mut HiddenStates<'_, D>, Option<&mut Companion<'_, D>>),
    layer: usize,
) -> Result<QuantizedBlock, QuantError> {
    let mut partial = PartialBlock::new(run, layer)?;
    let [qkv, out, up, down] = Role::ALL.map(|role| LinearId::dense(layer, role));

    partial.announce(qkv);
    let statistics = passes::attention_input(states, partial.block(), run.meter)?;
    partial.quantize_linear(qkv, statistics, (states, companion.as_deref_mut()))?;
    partial.calibrate_cache(states)?;
    if let Some(companion) = companion.as_deref_mut() {
        companion.attend(run.meter)?;
    }

    partial.announce(out);
    let statistics = passes::attention_output(states, partial.block(), run.meter)?;
    let values_changed = partial.quantize_linear(out, statistics, (states, companion.as_deref_mut()))?;
    if values_changed {
        partial.calibrate_cache(states)?;
        passes::repeat_attention(states, partial.block(), run.meter)?;
    }

    partial.announce(up);
    let statistics = passes::add_attention(states, partial.block(), run.meter)?;
    let pooled = match (partial.has_experts(), partial.has_linear(up)) {
        (true, false) => Some(statistics),
        (has_experts, _) => {
            let pooled = has_experts.then(|| statistics.clone());
            partial.quantize_linear(up, statistics, (states, companion.as_deref_mut()))?;
            pooled
        }
    };
    quantize_experts(&mut partial, (Role::Up, pooled), states)?;

    if partial.has_linear(down) {
        partial.announce(down);
        let statistics = passes::feed_forward_inner(states, partial.block(), run.meter)?;
        partial.quantize_linear(down, statistics, (states, companion.as_deref_mut()))?;
    }
    quantize_experts(&mut partial, (Role::Down, None), states)?;
    if let Some(companion) = companion.filter(|_| partial.has_experts()) {
        companion.pass(Role::Down, run.meter)?;
    }

    passes::add_feed_forward(states, partial.block(), run.meter)?;
    run.original.weights().release_pages();
    partial.finish()
}
