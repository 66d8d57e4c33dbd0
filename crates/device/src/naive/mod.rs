//! The specification: every operation as plain loops, one file each, no threads, no intrinsics.
//!
//! Whatever is faster is compared with these functions bit for bit (`tests/`). They say in which order floats are
//! added; speed is no concern here.

mod attention;
mod device;
mod elementwise;
mod exp;
mod gemm;
mod gram;
mod hadamard;
mod lanes;
mod mixture;
mod norm;
mod quantize;
mod rope;
mod sampling;
mod sgemm;
mod softmax;

pub use attention::{
    CachedHead, CachedHeadInt8, SPAN_TOKENS, Scoring, attention, attention_int8, to_f16, to_int8,
};
pub use device::NaiveDevice;
pub use elementwise::{abs_max, activate, add, embed, gated, gather, soft_cap, to_bf16};
pub use exp::{activation, erf, exp, exp2, gate, sigmoid, tanh};
pub use gemm::{epilogue, gemm_float, gemm_w4a8, gemm_w4f, gemm_w8a8};
pub use gram::{GRAM_BLOCK_TOKENS, cross_accumulate, gram_accumulate, quadratic_row};
pub use hadamard::{hadamard, hadamard_scale};
pub use lanes::{LANES, sum_lanes};
pub use mixture::{combine, route, route_token};
pub use norm::{layer_norm, rms_norm};
pub use quantize::quantize_row;
pub use quantize::usable_scale;
pub use rope::rope_head;
pub use sampling::{
    WHOLE_WEIGHT, adjust, adjusted, argmax, check, drawn_point, least_weight, more_likely, nucleus_weight,
    sample, sample_masked, weight,
};
pub use sgemm::{Transposes, sgemm};
pub use softmax::{log_softmax, log_sum_exp};
