//! Which kernels exist in which sizes, and how each covers a product.

mod config;
mod gemm_w4a8_sm80;
mod gemm_w4a8_sm90;
mod gemm_w4f_sm90;
mod gemv_w4a8_sm90;

pub(crate) use config::splits_of;
pub use config::{
    Cost, GemmConfig, GemmProblem, Geometry, Output, Split, TABLE, Variant, choose, enumerate, enumerate_all,
    stand_ins,
};
pub use gemm_w4a8_sm80::GemmSm80;
pub use gemm_w4a8_sm90::GemmSm90;
pub(crate) use gemm_w4f_sm90::pack_float_scales;
pub use gemm_w4f_sm90::{FLOAT_SCALES_TABLE, float_scales_cut};
pub use gemv_w4a8_sm90::GemvSm90;
