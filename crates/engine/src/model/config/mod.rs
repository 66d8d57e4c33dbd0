//! config.json and generation_config.json, in the spellings of transformers 4 and 5.

mod architecture;
mod error;
mod families;
mod fields;
mod file;
mod generation;
mod layer_types;
mod mixture;
mod rope;
mod sizes;
#[cfg(test)]
mod tests;

pub use architecture::{
    Family, FfnKind, FloatType, MixtureConfig, ModelConfig, NormKind, Position, QkNorm, RopeConfig,
    RopeScaling, SharedExpert,
};
pub use error::ConfigError;
pub use generation::SamplingDefaults;
