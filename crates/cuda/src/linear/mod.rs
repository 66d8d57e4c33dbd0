//! Products with INT8 and with float weights, from a layer on the host to a launch.
//!
//! `w8_image` and `float_image` say how weights lie on the card, `linear_w8` and `linear_float` hold a layer there (packed
//! whole or slice by slice, which `row_slices` counts), `gemm_w8a8` and `gemm_float` choose a kernel and launch it; `gemm_w8a8_sm90` is the one for
//! output layers on Hopper.

mod float_image;
mod gemm_float;
mod gemm_w8a8;
mod gemm_w8a8_sm90;
mod linear_float;
mod linear_w8;
mod row_slices;
mod w8_arguments;
mod w8_image;

pub use float_image::FloatKind;
pub use gemm_float::{FloatKernel, GemmFloat, gemm_float_sources};
pub use gemm_w8a8::{GemmW8A8, W8Kernel, gemm_w8a8_sources};
pub use gemm_w8a8_sm90::gemm_w8a8_sm90_sources;
pub use linear_float::{FloatPacker, LinearFloat};
pub use linear_w8::{LinearW8, W8Packer};
