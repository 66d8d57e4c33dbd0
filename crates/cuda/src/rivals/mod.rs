//! Products of others, to be measured beside our own; nothing of dualgrain runs on them.

mod cublas;
mod cublaslt;
mod sgemm_tiled;

pub use cublas::{Cublas, CublasBf16, CublasType};
pub use cublaslt::{CublasLtInt8, Int8Product};
pub use sgemm_tiled::{SGEMM_TILES, SgemmTiled, sgemm_source};
