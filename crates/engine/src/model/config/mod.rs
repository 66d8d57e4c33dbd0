//! config.json and generation_config.json, in the spellings of transformers 4 and 5.

mod architecture;
mod error;
mod families;
mod fields;
mod file;
mod generation;
mod llama_like;
mod rope;
mod sizes;
#[cfg(test)]
mod tests;
mod ungated;

pub use architecture::{
    Family, FfnKind, FloatType, ModelConfig, NormKind, Position, RopeConfig, RopeScaling,
};
pub use error::ConfigError;
pub use generation::SamplingDefaults;
