//! Why a model could not be quantized.

use std::path::PathBuf;

use dualgrain_engine::EngineError;
use dualgrain_format::FormatError;
use dualgrain_format::checkpoint::CheckpointError;
use thiserror::Error;

/// Why a model could not be quantized.
#[derive(Debug, Error)]
pub enum QuantError {
    /// The caller's cancellation flag was raised.
    #[error("cancelled; nothing existing was changed, and --resume continues from the last finished block")]
    Cancelled,
    /// The model could not be read or run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A quantized layer broke the number format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The output or the journal could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The calibration text has no tokens.
    #[error("the calibration text is empty: give a text of at least a few thousand words with --calib")]
    NoCalibration,
    /// A model that is quantized already.
    #[error("{} is quantized already: give the original model", .path.display())]
    AlreadyQuantized {
        /// The folder.
        path: PathBuf,
    },
    /// Activations that are not numbers came out of a block.
    #[error(
        "block {layer}: the input of {role} holds values that are not finite; the model (or its weights) is broken"
    )]
    NotFinite {
        /// The block.
        layer: usize,
        /// Which linear.
        role: &'static str,
    },
}
