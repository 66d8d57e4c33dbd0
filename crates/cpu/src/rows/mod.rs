//! Operations on the rows of a matrix, each compiled from one source for every instruction set.

pub(crate) mod activation;
pub(crate) mod elementwise;
pub(crate) mod log_softmax;
pub(crate) mod norm;
pub(crate) mod norm_quantize;
pub(crate) mod quantize;
pub(crate) mod reduce;
pub(crate) mod rope;
