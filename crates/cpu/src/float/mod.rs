//! Float products.
//!
//! `lanes` are 16 floats in registers, `tile` multiplies with them, `packing` brings operands into the order a tile reads.
//! Linear layers (`gemm`), Gram matrices (`gram`), sums over two inputs (`cross`) and quadratic forms
//! (`quadratic_form`) are made of tiles.

pub(crate) mod cross;
pub(crate) mod gemm;
pub(crate) mod gram;
pub(crate) mod lanes;
pub(crate) mod packing;
pub(crate) mod quadratic_form;
pub(crate) mod tile;
