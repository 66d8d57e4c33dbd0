//! The formats there are.

use std::fmt;

/// What a folder can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A Hugging Face folder in bf16.
    Hf,
    /// compressed-tensors with INT8 activations, a scale a token.
    CompressedTensors,
    /// compressed-tensors with 16-bit activations.
    CompressedTensorsW4a16,
    /// A GGUF file for llama.cpp.
    Gguf,
}

impl ExportFormat {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hf => "hf",
            Self::CompressedTensors => "compressed-tensors",
            Self::CompressedTensorsW4a16 => "compressed-tensors-w4a16",
            Self::Gguf => "gguf",
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
