//! The original model rotated: an orthogonal transform of the residual stream, and one of every value head, folded into the
//! weights. The model computes the same function, and no channel stands out any more.
//!
//! ```text
//! stream    x R                      embedding rows, and what Out and Down add:  W' = R^T W,  b' = b R
//! norms     weights become 1         RMSNorm commutes with R once its weights are in the linears behind it
//! readers   Qkv, Up, head            W' = W diag(norm) R
//! values    v S for every head       V' = S^T V,  Out' = Out S
//! ```
//! Where the input of Down is transformed while the model runs, Down's weights are those of the transformed input:
//! `W' = W H`, in blocks.
//!
//! `original` is the way in; `orthogonal` has the matrices. LayerNorm subtracts a mean, which is no rotation of the stream, so OPT
//! and BLOOM are not rotated. QuaRot, arXiv 2404.00456; SpinQuant, arXiv 2405.16406.

pub mod hadamard;
pub mod matrix;
pub mod original;
pub mod orthogonal;
