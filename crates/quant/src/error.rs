//! Why a model could not be quantized.

use std::path::PathBuf;

use dualgrain_device::DeviceError;
use dualgrain_engine::EngineError;
use dualgrain_format::FormatError;
use dualgrain_format::checkpoint::CheckpointError;
use thiserror::Error;

/// Why a model could not be quantized.
#[derive(Debug, Error)]
pub enum QuantError {
    /// The caller's cancellation flag was raised.
    #[error(
        "cancelled; nothing existing was changed, and finished blocks, if there are any, wait for --resume"
    )]
    Cancelled,
    /// The model could not be read or run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A quantized layer broke the number format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The device refused a buffer.
    #[error(transparent)]
    Kernel(#[from] DeviceError),
    /// config.json cannot be read or written as JSON.
    #[error("{}: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The output or the journal could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The disk of the output has no room for the result and what is kept until it is whole.
    #[error(
        "{}: the result and the journal need {:.1} GB of disk, {:.1} GB are free: free some space, or choose another disk with --out",
        .path.display(), *.needed_bytes as f64 / 1e9, *.free_bytes as f64 / 1e9
    )]
    DiskFull {
        /// The output folder.
        path: PathBuf,
        /// What is needed.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The calibration text has no tokens.
    #[error("the calibration text is empty: give a text of at least a few thousand words with --calib")]
    NoCalibration,
    /// Between the calibration windows there is no text to measure sensitivities on.
    #[error(
        "the calibration text has {got} tokens; a budget of bits is spent by what is measured on text between the calibration windows, \
         which takes at least {expected} tokens in windows of {window_tokens}: give a longer text with --calib, or shorter windows with \
         --context"
    )]
    NothingHeldOut {
        /// Tokens of the text.
        got: usize,
        /// Tokens that are needed.
        expected: usize,
        /// Tokens of a calibration window.
        window_tokens: usize,
    },
    /// One calibration window has no text between itself and another.
    #[error("a budget of bits takes two calibration windows or more: give --windows 2, or leave --bits out")]
    OneWindow,
    /// A budget that four bits do not fit.
    #[error(
        "a budget of {got} bits a weight: this model's linears take at least {least:.3} (4 bits in groups of 128, and what --scheme says)"
    )]
    Budget {
        /// The budget.
        got: f64,
        /// What the model takes at least.
        least: f64,
    },
    /// A model that is quantized already.
    #[error("{} is quantized already: give the original model", .path.display())]
    AlreadyQuantized {
        /// The folder.
        path: PathBuf,
    },
    /// Writing the result would replace the original.
    #[error("{} is or holds the original model: give another folder with --out", .path.display())]
    TargetHoldsModel {
        /// The output folder.
        path: PathBuf,
    },
    /// Replacing was asked for, but what is there is no result of an earlier run.
    #[error("{} holds something else than a model quantized by dualgrain and will not be replaced: choose another folder", .path.display())]
    TargetNotQuantized {
        /// The output folder.
        path: PathBuf,
    },
    /// Replacing would take a file with it that no run of dualgrain has written.
    #[error("{} is not part of a quantized model and would be lost: move it away or choose another folder", .path.display())]
    TargetHoldsOthers {
        /// The file.
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
    /// Keys or values that the chosen cache would change beyond rounding.
    #[error(
        "block {layer}: the largest magnitude of the {what} is {largest:e}, and the cache {cache} holds {least:e} to {most:e}: \
         --kv int8 holds any, with a scale for each token and head"
    )]
    CacheRange {
        /// The block.
        layer: usize,
        /// Keys or values.
        what: &'static str,
        /// The largest magnitude in calibration.
        largest: f32,
        /// The cache.
        cache: &'static str,
        /// The least of such magnitudes that it holds.
        least: f32,
        /// The largest that it holds.
        most: f32,
    },
    /// An earlier run into the same folder was not finished.
    #[error(
        "{} holds the finished blocks of an earlier run: continue it with --resume, or start anew with --restart",
        .path.display()
    )]
    JournalExists {
        /// The journal.
        path: PathBuf,
    },
    /// Another process is writing the same journal.
    #[error(
        "another run is writing {} at this moment: wait for it, or give another folder with --out",
        .path.display()
    )]
    JournalBusy {
        /// The journal.
        path: PathBuf,
    },
    /// The journal belongs to a run with other options, another model or another text.
    #[error(
        "{} belongs to another run and cannot be resumed ({differences}): use the same options, or start anew with --restart",
        .path.display()
    )]
    JournalDiffers {
        /// The journal.
        path: PathBuf,
        /// What differs.
        differences: String,
    },
    /// Something else lies where the journal should be.
    #[error("{} does not belong to a journal: it stands where the journal of this output would go, move it away", .path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// A calibration token that the model does not have.
    #[error(
        "calibration token {got} is outside the vocabulary of {vocab_size}: does the tokenizer belong to this model?"
    )]
    Token {
        /// The token.
        got: u32,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
    /// A scheme for a block that the model does not have.
    #[error("scheme {rule}: the model has the blocks 0 to {}", num_layers.saturating_sub(1))]
    NoBlock {
        /// The rule.
        rule: String,
        /// Blocks of the model.
        num_layers: usize,
    },
    /// A family that a rotation would change.
    #[error("{family} models cannot be rotated: {reason}; quantize without --rotate")]
    Unrotatable {
        /// The family.
        family: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// An option that mixtures of experts do not have.
    #[error("{option} is not for mixtures of experts: {reason}; quantize without it")]
    NotForExperts {
        /// The option.
        option: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A feed-forward whose width is odd.
    #[error(
        "the feed-forward has {ffn_size} channels, which no power of two divides: quantize without --hadamard-down"
    )]
    NoHadamard {
        /// Its width.
        ffn_size: usize,
    },
    /// A calibration window longer than the model's positions.
    #[error(
        "calibration windows of {got} tokens, the model has {max_positions} positions: ask for shorter windows"
    )]
    WindowTooLong {
        /// Tokens in a window.
        got: usize,
        /// Positions of the model.
        max_positions: usize,
    },
}
