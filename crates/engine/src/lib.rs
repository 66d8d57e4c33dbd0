//! Tokens in, tokens out: configuration, weights, model families, sessions.
//!
//! [`ModelConfig`] is config.json in either spelling; [`BlockSpec`] describes one block of any family; [`Weights`] are
//! the mapped tensors; [`Block`] runs in public steps so that a quantizer can look at the input of every linear;
//! [`Model`] and [`Session`] put blocks, embeddings, head and KV cache together.
#![deny(unsafe_code)]

mod block;
pub mod chat;
mod config;
pub mod detokenizer;
mod error;
pub mod evaluate;
mod family;
pub mod generate;
mod jinja;
mod mapping;
mod model;
mod products;
mod role;
mod rope;
pub mod sampler;
mod session;
mod stop;
mod storage;
pub mod tokenizer;
mod weights;

pub use block::{Block, FeedForward, Norm, Projection, Scratch};
pub use config::{
    ConfigError, Family, FfnKind, FloatType, ModelConfig, NormKind, Position, RopeConfig, RopeScaling,
};
pub use error::EngineError;
pub use family::{BlockSpec, Member, NormSpec, RoleSpec};
pub use model::{Embedding, Head, LoadOptions, Model};
pub use products::{Product, products};
pub use role::{JoinedLinear, Role, load_role, load_role_float, split_members};
pub use rope::Angles;
pub use session::{Session, SessionError, SessionLimits, SessionMemory};
pub use storage::Storage;
pub use weights::{LEADING, Weights, WeightsError};
