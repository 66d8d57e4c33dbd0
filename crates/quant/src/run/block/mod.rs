//! One block from floats to integers: `steps` takes its linears in order of execution, `partial_block` holds what is quantized so
//! far, `experts` quantizes those of a mixture, `quantized_block` is what a finished block leaves.

pub mod experts;
pub mod partial_block;
pub mod quantized_block;
pub mod steps;
