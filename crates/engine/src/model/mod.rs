//! A model as data and as buffers: what config.json says (`config`), which tensors a block has (`family`, `role`), how they are joined (`linears`), the
//! tensors themselves (`weights`), and what is ready to run (`block`, `loaded`).

mod angles;
mod block;
mod config;
mod family;
mod linears;
mod loaded;
mod norm;
mod products;
mod projection;
mod role;
mod scratch;
mod storage;
mod weights;

pub use angles::Angles;
pub use block::{Block, FeedForward};
pub use config::{
    ConfigError, Family, FfnKind, FloatType, ModelConfig, NormKind, Position, RopeConfig, RopeScaling,
};
pub use family::{BlockSpec, Member, NormSpec, RoleSpec};
pub use linears::{JoinedLinear, load_role, load_role_float, split_members};
pub use loaded::{Embedding, Head, LoadOptions, Model};
pub use norm::Norm;
pub use products::{Product, products};
pub use projection::Projection;
pub use role::Role;
pub use scratch::Scratch;
pub use storage::Storage;
pub use weights::{LEADING, Weights, WeightsError};
