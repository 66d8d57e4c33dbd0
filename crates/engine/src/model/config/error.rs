//! What can be wrong with config.json.

use std::path::PathBuf;

use dualgrain_format::SchemeError;
use dualgrain_format::foreign::ForeignError;
use dualgrain_format::text::TextError;
use thiserror::Error;

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {source} (a model folder needs a config.json){hint}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// Where the model may be, as the end of a sentence.
        hint: String,
    },
    /// Something in a file is wrong.
    #[error("{}: {problem}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Box<ConfigError>,
    },
    /// The text is not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// A field has a value of the wrong kind or outside its range.
    #[error("`{field}` is {got}, expected {expected}")]
    Field {
        /// The field.
        field: String,
        /// What would be right.
        expected: String,
        /// The value found.
        got: String,
    },
    /// An architecture this engine does not know.
    #[error("architecture `{got}` is not supported; supported: {supported}")]
    Architecture {
        /// The architecture or model type found.
        got: String,
        /// The architectures that are.
        supported: String,
    },
    /// A known architecture with a feature this engine does not have.
    #[error("`{field}` = {got} is not supported; supported: {supported}")]
    Unsupported {
        /// The field.
        field: String,
        /// The value found.
        got: String,
        /// What would be accepted.
        supported: String,
    },
    /// A file is no text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// `quantization_config` is not one of ours.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// Another program quantized the model in a way that is not read.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
}
