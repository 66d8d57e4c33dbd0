//! What can be wrong with a model that another program quantized.

use safetensors::Dtype;
use thiserror::Error;

/// Why a foreign configuration, or the tensors of a linear, were refused.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum ForeignError {
    /// A method that is not read.
    #[error(
        "quant_method is `{got}`, this program reads `dualgrain`, gptq, awq, compressed-tensors, fp8 and mxfp4 (and models in floats): \
         take the original, in floats"
    )]
    Method {
        /// The value found.
        got: String,
    },
    /// A field of the configuration has a value that is not read.
    #[error("quantization_config: `{field}` is {got}, expected {expected}")]
    Field {
        /// The field, with those around it.
        field: String,
        /// The value found.
        got: String,
        /// What is read.
        expected: String,
    },
    /// A tensor of a linear is not there.
    #[error("`{part}` is missing{reason}")]
    Missing {
        /// The tensor, without the linear's name.
        part: &'static str,
        /// Why it must be there, as the end of a sentence.
        reason: &'static str,
    },
    /// A tensor of a linear has another shape than the others and the configuration ask for.
    #[error("`{part}` has shape {got:?}, expected {expected}")]
    Shape {
        /// The tensor.
        part: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that would fit.
        expected: String,
    },
    /// A tensor of a linear has another type.
    #[error("`{part}` has type {got:?}, expected {expected}")]
    Type {
        /// The tensor.
        part: &'static str,
        /// Its type.
        got: Dtype,
        /// The types that are read.
        expected: &'static str,
    },
    /// An input belongs to a group that is not there.
    #[error("`{part}`[{index}] is {got}, expected a group from 0 to {last}")]
    Group {
        /// The tensor.
        part: &'static str,
        /// The input.
        index: usize,
        /// The group named.
        got: i32,
        /// The last group that there is.
        last: usize,
    },
    /// A scale that is no number.
    #[error("`{part}` of output {row}, group {group} is {got}, expected a finite number")]
    Scale {
        /// The tensor.
        part: &'static str,
        /// The output.
        row: usize,
        /// The group.
        group: usize,
        /// The value.
        got: f32,
    },
    /// A linear that no group of `config_groups` is for.
    #[error("it is packed, but {reason}")]
    Untargeted {
        /// What the configuration says of it.
        reason: String,
    },
}
