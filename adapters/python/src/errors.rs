//! Which exception tells of which error.

use std::any::Any;

use dualgrain::Error;
use dualgrain::engine::chat::ChatError;
use dualgrain::engine::evaluate::EvaluateError;
use dualgrain::engine::tokenizer::TokenizerError;
use dualgrain::engine::{EngineError, GenerateError};
use dualgrain::quant::QuantError;
use dualgrain_perf::PerfError;
use pyo3::prelude::*;

use crate::words::in_python;

pyo3::import_exception!(dualgrain.errors, ArgumentError);
pyo3::import_exception!(dualgrain.errors, Cancelled);
pyo3::import_exception!(dualgrain.errors, DeviceError);
pyo3::import_exception!(dualgrain.errors, InternalError);
pyo3::import_exception!(dualgrain.errors, ModelError);
pyo3::import_exception!(dualgrain.errors, OutOfMemoryError);
pyo3::import_exception!(dualgrain.errors, QuantizationError);

/// Kinds of errors, each of which is an exception in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Argument,
    Cancelled,
    Device,
    Internal,
    Memory,
    Model,
    Quantization,
}

impl Kind {
    /// The exception of this kind that says `message`.
    fn exception(self, message: String) -> PyErr {
        match self {
            Self::Argument => ArgumentError::new_err(message),
            Self::Cancelled => Cancelled::new_err(message),
            Self::Device => DeviceError::new_err(message),
            Self::Internal => InternalError::new_err(message),
            Self::Memory => OutOfMemoryError::new_err(message),
            Self::Model => ModelError::new_err(message),
            Self::Quantization => QuantizationError::new_err(message),
        }
    }
}

/// The exception of an error of the library, or of a crate below it.
pub fn exception(error: impl Into<Error>) -> PyErr {
    let error = error.into();
    kind(&error).exception(in_python(&error.to_string()))
}

/// The exception of an error of a fitted model.
pub fn of_price(error: PerfError) -> PyErr {
    let kind = match &error {
        PerfError::Io { .. } | PerfError::Malformed { .. } | PerfError::CorruptRow { .. } => Kind::Model,
        _ => Kind::Argument,
    };
    kind.exception(in_python(&error.to_string()))
}

/// The exception of a chat template that is missing, damaged, or refuses a conversation.
pub fn of_chat(error: ChatError) -> PyErr {
    let kind = match &error {
        ChatError::Missing { .. } | ChatError::Name { .. } => Kind::Model,
        ChatError::File(error) => of_tokenizer(error),
        ChatError::Template(_) | ChatError::Refused(_) => Kind::Argument,
    };
    kind.exception(error.to_string())
}

/// The exception of a panic, which is a fault of the library.
pub fn of_panic(payload: &(dyn Any + Send)) -> PyErr {
    let words = payload.downcast_ref::<&str>().copied();
    let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Kind::Internal.exception(format!(
        "this is a fault of dualgrain: {}",
        words.unwrap_or("a panic without words")
    ))
}

/// What is left of an engine after a panic.
pub fn broken() -> PyErr {
    Kind::Internal.exception(
        "an earlier call failed inside the engine, so it is not used any more: make another Engine"
            .to_owned(),
    )
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::NoFolder { .. } | Error::Config(_) | Error::Weights(_) => Kind::Model,
        Error::Tokenizer(error) => of_tokenizer(error),
        Error::Memory { .. } | Error::Plan(_) => Kind::Memory,
        Error::NoText | Error::Calibration(_) | Error::CalibrationLine { .. } => Kind::Argument,
        Error::Device(_) | Error::NoCuda { .. } | Error::Cuda(_) => Kind::Device,
        Error::Engine(error) => of_engine(error),
        Error::Generate(error) => of_generation(error),
        Error::Evaluate(error) => of_evaluation(error),
        Error::Quant(error) => of_quantizer(error),
    }
}

fn of_tokenizer(error: &TokenizerError) -> Kind {
    match error {
        TokenizerError::Missing { .. } | TokenizerError::Read { .. } | TokenizerError::Content { .. } => {
            Kind::Model
        }
        _ => Kind::Argument,
    }
}

fn of_engine(error: &EngineError) -> Kind {
    match error {
        EngineError::Device(_) => Kind::Device,
        EngineError::Parameter(_) | EngineError::Session(_) | EngineError::Constraint(_) => Kind::Argument,
        EngineError::Rehearsal { source } => of_engine(source),
        _ => Kind::Model,
    }
}

fn of_generation(error: &GenerateError) -> Kind {
    match error {
        GenerateError::Engine(error) => of_engine(error),
        GenerateError::Tokenizer(error) => of_tokenizer(error),
        GenerateError::InBatch { error, .. } => of_generation(error),
        GenerateError::EmptyPrompt
        | GenerateError::PromptTooLong { .. }
        | GenerateError::EmptyStop { .. } => Kind::Argument,
    }
}

fn of_evaluation(error: &EvaluateError) -> Kind {
    match error {
        EvaluateError::Engine(error) => of_engine(error),
        EvaluateError::Step(error) => of_engine(error),
        EvaluateError::Device(_) => Kind::Device,
        EvaluateError::Tokenizer(error) => of_tokenizer(error),
        EvaluateError::NotFinite { .. } => Kind::Model,
        _ => Kind::Argument,
    }
}

fn of_quantizer(error: &QuantError) -> Kind {
    match error {
        QuantError::Cancelled => Kind::Cancelled,
        QuantError::Engine(error) => of_engine(error),
        QuantError::Kernel(_) => Kind::Device,
        QuantError::AlreadyQuantized { .. } | QuantError::Json { .. } => Kind::Model,
        QuantError::Budget { .. }
        | QuantError::NoBlock { .. }
        | QuantError::OneWindow
        | QuantError::NoCalibration
        | QuantError::NothingHeldOut { .. }
        | QuantError::Unrotatable { .. }
        | QuantError::NotForExperts { .. } => Kind::Argument,
        _ => Kind::Quantization,
    }
}
