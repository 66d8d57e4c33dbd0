//! How many multiply-adds of floats a run takes: for progress and the plan.

use dualgrain_device::Device;
use dualgrain_engine::{BlockSpec, ModelConfig, Role};
use dualgrain_format::TensorScheme;

use crate::calibrate::multiply_adds::{PassMultiplyAdds, gram_multiply_adds};
use crate::calibrate::windows::Windows;
use crate::methods::method::Method;
use crate::options::QuantOptions;

/// All of a run: passes over the windows and what the method takes for every linear.
pub fn run_multiply_adds<D: Device>(
    config: &ModelConfig,
    options: &QuantOptions,
    windows: &Windows,
    method: &dyn Method<D>,
) -> u64 {
    let (count, tokens) = (windows.len() as u64, windows.window_len());
    let spec = BlockSpec::new(config, 0);
    let linears = Role::ALL.map(|role| {
        let shape = (spec.role(role).n, spec.role(role).k);
        method.multiply_adds(shape, options.group_size)
    });
    let block = count * PassMultiplyAdds::new(&spec, tokens).total() + linears.iter().sum::<u64>();
    let head = match options.lm_head {
        TensorScheme::W4 => {
            let shape = (config.vocab_size, config.hidden_size);
            count * gram_multiply_adds(tokens, config.hidden_size)
                + method.multiply_adds(shape, options.group_size)
        }
        TensorScheme::Float | TensorScheme::W8 => 0,
    };
    config.num_layers as u64 * block + head
}
