//! A folder that appears whole or not at all.

use std::path::Path;

use crate::checkpoint::{CheckpointError, TensorSpec};

/// Writes a model folder beside its target and renames it when it is complete; dropping it unfinished removes it.
#[derive(Debug)]
pub struct FolderWriter {}

impl FolderWriter {
    /// Starts `.NAME.partial-PID` beside `target`.
    ///
    /// # Errors
    /// `target` exists and is not empty (unless `replace`), or the folder can not be made.
    pub fn create(target: &Path, replace: bool) -> Result<Self, CheckpointError> {
        let _ = (target, replace);
        todo!()
    }

    /// Where files are written until [`Self::commit`].
    pub fn partial_path(&self) -> &Path {
        todo!()
    }

    /// Writes one file (config.json, tokenizer.json, a report) and syncs it.
    ///
    /// # Errors
    /// The file can not be written.
    pub fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let _ = (name, bytes);
        todo!()
    }

    /// Announces all tensors and starts their files: `model.safetensors`, or shards of at most 5 GB with
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// A name twice, sizes that overflow, or a file that can not be made (the disk space is reserved now).
    pub fn start_tensors(&mut self, specs: Vec<TensorSpec>) -> Result<(), CheckpointError> {
        let _ = specs;
        todo!()
    }

    /// Writes the bytes of one announced tensor, little endian. Tensors may come in any order.
    ///
    /// # Errors
    /// A tensor not announced or written before, a different number of bytes, or an I/O error.
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let _ = (name, bytes);
        todo!()
    }

    /// Syncs everything and puts the folder in place; what it replaces is removed only afterwards.
    ///
    /// # Errors
    /// A tensor announced but never written, or an I/O error; the target is then what it was before.
    pub fn commit(self) -> Result<(), CheckpointError> {
        todo!()
    }
}
