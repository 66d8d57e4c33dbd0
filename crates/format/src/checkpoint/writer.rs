//! Writing: tensors announced beforehand, then streamed one at a time into one or several safetensors files.

use crate::checkpoint::Dtype;

/// A tensor announced to the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
}

/// Streams announced tensors, in any order, into files of at most 5 GB each.
#[derive(Debug)]
pub struct TensorsWriter {}
