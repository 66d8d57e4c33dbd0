//! How many multiply-adds of floats a run takes: for progress and the plan.

use dualgrain_device::Statistics;
use dualgrain_engine::{BlockSpec, LinearId, LinearSpec, ModelConfig, kind_of_block, kinds_of_blocks};
use dualgrain_format::{GroupSize, LinearScheme};

use crate::budget::sensitivity;
use crate::calibrate::multiply_adds::{PassMultiplyAdds, gram_multiply_adds};
use crate::calibrate::windows::Windows;
use crate::methods::int8::Int8;
use crate::methods::method::Method;
use crate::options::QuantOptions;
use crate::run::correction::corrects;
use crate::transform::rotation::orthogonal::Orthogonal;

/// A multiply-add of doubles that no register tile holds takes about so many times that of a product.
const F64_COST: u64 = 8;

/// All of a run: passes over the windows and what the method takes for every linear.
pub fn run_multiply_adds<D: Statistics>(
    config: &ModelConfig,
    options: &QuantOptions,
    windows: &Windows,
    method: &dyn Method<D>,
) -> u64 {
    let (count, tokens) = (windows.len() as u64, windows.window_len());
    let corrects = corrects(options, windows);
    let passes = |spec: &BlockSpec| {
        let of_window = PassMultiplyAdds::new(spec, tokens);
        let companion = if corrects { of_window.companion() } else { 0 };
        let rotation = u64::from(options.rotate) * rotation_multiply_adds(config, spec, corrects);
        count * (of_window.total() + companion) + rotation
    };
    let linear = |layer, linear: &LinearSpec| {
        let shape = (linear.n, linear.k);
        match options.scheme(LinearId { layer, ..linear.id }) {
            LinearScheme::Float => 0,
            LinearScheme::W8 => Method::<D>::multiply_adds(&Int8, shape, GroupSize::WholeRow),
            LinearScheme::W4 { group_size } => method.multiply_adds(shape, group_size),
        }
    };
    let kinds = kinds_of_blocks(config);
    let block = |layer| {
        let of_kind =
            |spec: &BlockSpec| passes(spec) + spec.linears.values().map(|of| linear(layer, of)).sum::<u64>();
        kind_of_block(&kinds, config, layer).map_or(0, of_kind)
    };
    let head = match options.lm_head {
        LinearScheme::W4 { group_size } => {
            let shape = (config.vocab_size, config.hidden_size);
            count * gram_multiply_adds(tokens, config.hidden_size) + method.multiply_adds(shape, group_size)
        }
        LinearScheme::Float | LinearScheme::W8 => 0,
    };
    (0..config.num_layers).map(block).sum::<u64>() + head + measurement(config, options, windows)
}

/// Finding out what rounding each linear does, where a budget is spent by it.
fn measurement(config: &ModelConfig, options: &QuantOptions, windows: &Windows) -> u64 {
    let held_out = windows.held_out();
    let size = (held_out.len(), held_out.window_len());
    options
        .bits
        .map_or(0, |_| sensitivity::multiply_adds(config, size))
}

/// Rotating the linears of a block, once more for the original model beside it.
fn rotation_multiply_adds(config: &ModelConfig, spec: &BlockSpec, corrects: bool) -> u64 {
    let weights: usize = spec.linears.values().map(|linear| linear.n * linear.k).sum();
    let rows = (weights / config.hidden_size) as u64;
    let of_block = F64_COST * rows * Orthogonal::multiply_adds(config.hidden_size);
    of_block * (1 + u64::from(corrects))
}
