//! W4A8 products, from a shape to a launch.

mod kernels;
mod operands;
mod product;
mod selection;

pub use kernels::{
    Cost, FLOAT_SCALES_TABLE, GemmConfig, GemmProblem, GemmSm80, GemmSm90, GemvSm90, Geometry, Output, Split,
    TABLE, Variant, choose, enumerate, enumerate_all, float_scales_cut, stand_ins,
};
pub use operands::{BLOCK_K, BLOCK_N, GroupLength, image_bytes, pack};
pub use product::{Gemm, PackedLinear, QuantizedTokens, TokenCodes};
pub use selection::{Analytic, SELECTION_VARIABLE, SelectionError, SelectionTable, select};
