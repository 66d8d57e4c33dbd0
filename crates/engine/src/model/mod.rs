//! A model as data and as buffers: what config.json says (`config`), which tensors a block has (`family`, `linear_id`), how they are joined (`linears`), the
//! tensors themselves (`weights`), and what is ready to run (`block` and its `feed_forward`, `loaded`).

mod angles;
mod block;
mod config;
mod family;
mod feed_forward;
mod folder_hint;
mod forward;
mod gguf;
mod judgement;
mod linear_id;
mod linears;
mod loaded;
mod norm;
mod products;
mod projection;
mod scratch;
mod storage;
mod weights;

pub use angles::Angles;
pub use block::Block;
pub use config::{
    ConfigError, Family, FfnKind, FloatType, MixtureConfig, ModelConfig, NormKind, Position, QkNorm,
    RopeConfig, RopeScaling, SamplingDefaults, SharedExpert,
};
pub use family::{BlockSpec, LinearSpec, Member, MixtureSpec, NormSpec, Rope};
pub use feed_forward::{ExpertProjections, FeedForward, Mixture, Mlp};
pub use folder_hint::folder_hint;
pub use forward::{StepState, run_blocks};
pub use gguf::{GGUF_POINTER, GgufModelError, gguf_folder, gguf_folder_in, is_gguf_file};
pub use judgement::{ModelFolder, judge};
pub use linear_id::{LinearId, Role};
pub use linears::{JoinedLinear, load_linear, load_linear_float, load_router, split_members};
pub use loaded::{Embedding, Head, LoadOptions, Model};
pub use norm::Norm;
pub use products::{Product, kind_of_block, kinds_of_blocks, products};
pub use projection::Projection;
pub use scratch::{Scratch, angles_bytes, scratch_bytes};
pub use storage::Storage;
pub use weights::{InFloats, LEADING, RawTensor, Weights, WeightsError};
