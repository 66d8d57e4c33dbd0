//! Tokens in, tokens out: configuration, weights, model families, sessions.
//!
//! [`ModelConfig`] is config.json in either spelling; [`BlockSpec`] describes one block of any family; [`Weights`] are
//! the mapped tensors; [`Block`] runs in public steps so that a quantizer can look at the input of every linear;
//! [`Model`] and [`Session`] put blocks, embeddings, head and KV cache together.
#![deny(unsafe_code)]

mod error;
pub mod evaluate;
mod model;
mod run;
mod text;

pub use dualgrain_device::sampling::TokenMask;
pub use dualgrain_device::{Activation, RoutingRule, RoutingScoring};
pub use error::EngineError;
pub use model::{
    Angles, Block, BlockSpec, ConfigError, Embedding, ExpertProjections, Family, FeedForward, FfnKind,
    FloatType, GGUF_POINTER, GgufModelError, Head, InFloats, JoinedLinear, LEADING, LinearId, LinearSpec,
    LoadOptions, Member, Mixture, MixtureConfig, MixtureSpec, Mlp, Model, ModelConfig, ModelFolder, Norm,
    NormKind, NormSpec, Position, Product, Projection, QkNorm, RawTensor, Role, Rope, RopeConfig,
    RopeScaling, SamplingDefaults, Scratch, SharedExpert, StepState, Storage, Weights, WeightsError,
    angles_bytes, folder_hint, gguf_folder, gguf_folder_in, is_gguf_file, judge, kind_of_block,
    kinds_of_blocks, load_linear, load_linear_float, load_router, products, run_blocks, scratch_bytes,
    split_members,
};
pub use run::{
    BatchGeneration, Constraint, ConstraintError, ConstraintState, Engine, Event, GenerateError,
    GenerateOptions, Generation, Next, OnText, PagePool, Progress, Request, Session, SessionError,
    SessionLimits, SessionMemory, SharedConstraint, Timings, scheduler,
};
pub use scheduler::{FinishReason, SequenceId};
pub use text::{chat, detokenizer, tokenizer};
