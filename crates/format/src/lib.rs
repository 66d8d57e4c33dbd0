//! What the bits of a dual-grained W4A8 model mean: shapes, nibble packing, linear layers, checkpoints.
//!
//! One weight is `w[n,k] ~= s1[n] * s2[n,g] * (q[n,k] - zero[n,g])` (`weight.rs`): a 4-bit code, an INTEGER scale for
//! each run of `group_size` weights along K (fine grain) and one float scale for each output channel (coarse grain). DGQ,
//! arXiv 2310.04836, section 3. DESIGN.md ("Number format") is the contract this crate enforces.
#![forbid(unsafe_code)]

pub mod checkpoint;
mod error;
pub mod foreign;
mod gemm_shape;
pub mod gguf;
mod group_size;
mod hadamard;
pub mod int4;
mod linear;
mod linear_scheme;
mod quantization_config;
pub mod text;
pub mod weight;

pub use error::FormatError;
pub use gemm_shape::{GemmShape, K_MAX};
pub use group_size::GroupSize;
pub use hadamard::transform_blocks;
pub use linear::float::{FloatLinear, FloatValues};
pub use linear::int8::Int8Linear;
pub use linear::quantized::{QuantizedLinear, QuantizedParts};
pub use linear::weights::LinearWeights;
pub use linear_scheme::LinearScheme;
pub use quantization_config::{
    ActivationScheme, CacheScheme, FORMAT_VERSION, KEY_SCALES_TENSOR, MOST_HADAMARD_BLOCK, QUANT_METHOD,
    QuantizationConfig, SchemeError, VALUE_SCALES_TENSOR,
};
