//! Reading: the table of tensors at the head of a safetensors file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::CheckpointError;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub bytes: Range<usize>,
}

/// All tensors of a file by name; every range is proved to lie inside the file and to fit dtype and shape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TensorTable {
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorEntry>,
}

impl TensorTable {
    /// Reads and checks the header of a whole file's bytes. `path` is only for the error.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`] for anything that is not a complete safetensors file.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self, CheckpointError> {
        let malformed = |problem: String| CheckpointError::Malformed {
            path: path.to_path_buf(),
            problem,
        };
        let parsed = SafeTensors::deserialize(file).map_err(|e| malformed(explain(&e, file.len())))?;
        let start = file.as_ptr() as usize;
        let tensors = parsed.iter().map(|(name, view)| {
            let first = view.data().as_ptr() as usize - start;
            let entry = TensorEntry {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: first..first + view.data().len(),
            };
            (name.to_owned(), entry)
        });
        Ok(Self {
            tensors: tensors.collect(),
        })
    }
}

fn explain(error: &safetensors::SafeTensorError, len: usize) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::HeaderTooSmall | E::InvalidHeaderLength | E::MetadataIncompleteBuffer => format!(
            "the file has {len} bytes, its header asks for a different length (was the download or copy cut short?)"
        ),
        other => other.to_string(),
    }
}
