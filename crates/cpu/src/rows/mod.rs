//! Operations on the rows of a matrix, each compiled from one source for every instruction set.
//!
//! `elementwise` takes one element at a time, `norm`, `quantize` and `log_softmax` a whole row (`reduce` holds the sums and
//! maxima they share), `norm_quantize` a norm and the quantization behind it, `hadamard` runs of a row, `rope` the two halves of a head,
//! `sampling` the choice of a token from a row of logits.

pub(crate) mod activation;
pub(crate) mod elementwise;
pub(crate) mod hadamard;
pub(crate) mod log_softmax;
pub(crate) mod mixture;
pub(crate) mod norm;
pub(crate) mod norm_quantize;
pub(crate) mod quantize;
pub(crate) mod reduce;
pub(crate) mod rope;
pub(crate) mod sampling;
