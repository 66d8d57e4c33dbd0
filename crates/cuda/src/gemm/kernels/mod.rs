//! Which kernels exist in which sizes, what a size needs of a card, and how it covers a product.

mod config;
mod gemm_w4a8_sm80;
mod gemm_w4a8_sm90;
mod gemm_w4f_sm90;
mod gemv_w4a8_sm90;
mod geometry;
mod table;
mod variant;

pub use config::GemmConfig;
pub use gemm_w4a8_sm80::GemmSm80;
pub use gemm_w4a8_sm90::GemmSm90;
pub use gemv_w4a8_sm90::GemvSm90;
pub use geometry::{Geometry, Split};
pub use table::{FLOAT_SCALES_TABLE, TABLE};
pub use variant::{Variant, float_scales_cut};
