//! W4A8 products, from a shape to a launch.
//!
//! `problem` says what is to be multiplied, `kernels` what exists and how it covers a product, `selection` what is to do it,
//! `operands` how weights and activations lie on the card, and `product` is all of it made ready.

mod kernels;
mod operands;
mod problem;
mod product;
mod selection;

pub use kernels::{
    FLOAT_SCALES_TABLE, GemmConfig, GemmSm80, GemmSm90, GemvSm90, Geometry, Split, TABLE, Variant,
    float_scales_cut,
};
pub(crate) use operands::group_macro;
pub use operands::{
    BLOCK_K, BLOCK_N, PackedLinear, QuantizedTokens, TokenCodes, block_bytes, groups_per_block, image_bytes,
    pack,
};
pub use problem::{GemmProblem, Output};
pub use product::Gemm;
pub use selection::{
    Analytic, Cost, SELECTION_VARIABLE, SelectionError, SelectionTable, choose, enumerate, enumerate_all,
    select, stand_ins,
};
