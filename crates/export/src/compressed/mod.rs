//! compressed-tensors: packed integers with 16-bit scales, as vLLM and transformers load them.
//!
//! | linear `X` | tensors |
//! |---|---|
//! | 4 bits | `X.weight_packed` I32 [N, ceil(K/8)], eight codes a word; `X.weight_zero_point` I32 [ceil(N/8), groups], eight rows a word; `X.weight_scale` F16 [N, groups]; `X.weight_shape` I64 [2] |
//! | 8 bits, INT8 activations | `X.weight` I8 [N, K], `X.weight_scale` F16 [N, 1] |
//! | 8 bits, 16-bit activations | `X.weight_packed` I32 [N, ceil(K/4)], four codes a word; `X.weight_scale`, `X.weight_shape` |
//! | the head | `X.weight` BF16 [N, K] |

mod description;
mod form;
mod packing;

pub use form::CompressedForm;
