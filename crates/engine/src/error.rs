//! One error for everything the engine does, so that callers need a single `?`.

use std::sync::Arc;

use dualgrain_device::DeviceError;
use dualgrain_device::sampling::{ParameterError, SampleError};
use dualgrain_format::FormatError;
use dualgrain_format::checkpoint::CheckpointError;
use thiserror::Error;

use crate::{ConfigError, ConstraintError, LinearId, SessionError, WeightsError};

/// Why a model could not be loaded or run.
#[derive(Debug, Error)]
pub enum EngineError {
    /// config.json is wrong or asks for something unsupported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A block was asked for a linear that it does not have.
    #[error("{id}: there is no such linear")]
    NoLinear {
        /// The linear.
        id: LinearId,
    },
    /// Experts of one block are computed together, and so in one way.
    #[error(
        "{id}, and the others of the block: some experts have float weights and some integer ones, or scales of activations of their own; \
         quantize the original again with one scheme for all experts of a block, and without static activations"
    )]
    UnlikeExperts {
        /// The first of them.
        id: LinearId,
    },
    /// Linears that must be joined do not fit together.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The device refused a buffer or failed at an operation.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A row of logits is no distribution.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The constraint of a request could not be followed.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// A sampling parameter is outside its range.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A session was asked for something beyond its limits.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The run before the first request failed, so no request would do better.
    #[error("a first run of the model, before any request: {source}")]
    Rehearsal {
        /// What went wrong.
        source: Arc<EngineError>,
    },
}
