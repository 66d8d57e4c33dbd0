//! The matrix products of a step, for planning and profiling.

use dualgrain_format::GemmShape;

use crate::ModelConfig;

/// A product that a step runs `count` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// `qkv`, `out`, `up`, `down` or `head`.
    pub name: &'static str,
    /// Its shape.
    pub shape: GemmShape,
    /// How often a step runs it.
    pub count: usize,
}

/// The products of a step of `m` tokens; the head runs on all of them.
pub fn products(config: &ModelConfig, m: usize) -> Vec<Product> {
    let _ = (config, m);
    todo!()
}
