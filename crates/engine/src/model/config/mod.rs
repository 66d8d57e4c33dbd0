//! config.json and generation_config.json, in the spellings of transformers 4 and 5.

mod architecture;
mod error;
mod families;
mod fields;
mod file;
mod gemma;
mod generation;
mod layer_types;
mod llama_like;
mod parallel;
mod rope;
mod sizes;
#[cfg(test)]
mod tests;
mod ungated;

pub use architecture::{
    Family, FfnKind, FloatType, ModelConfig, NormKind, Position, QkNorm, RopeConfig, RopeScaling,
};
pub use error::ConfigError;
pub use generation::SamplingDefaults;
