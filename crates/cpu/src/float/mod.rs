//! Float products: 16 lanes in registers, the tile that multiplies with them, and what is made of it.

pub(crate) mod gemm;
pub(crate) mod gram;
pub(crate) mod lanes;
pub(crate) mod packing;
pub(crate) mod quadratic_form;
pub(crate) mod tile;
