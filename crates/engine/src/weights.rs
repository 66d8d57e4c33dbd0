//! The tensors of a model folder, memory-mapped, checked when they are taken, each used exactly once.

use std::path::Path;

use dualgrain_format::checkpoint::Dtype;
use dualgrain_format::{FloatValues, LinearWeights, QuantizationConfig};
use thiserror::Error;

/// The mapped tensors of a model folder (one file, or shards with an index).
///
/// A name that is not there is also looked for without its leading `model.` or `transformer.`: checkpoints of the
/// bare model leave that out.
#[derive(Debug)]
pub struct Weights {}

/// Why tensors were refused.
#[derive(Debug, Error)]
pub enum WeightsError {}

impl Weights {
    /// Maps `dir/model.safetensors`, or the shards that `dir/model.safetensors.index.json` names.
    ///
    /// # Errors
    /// Files missing, truncated or malformed; an index that does not fit the shards.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let _ = dir;
        todo!()
    }

    /// Whether tensor `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        let _ = name;
        todo!()
    }

    /// Takes a float tensor: bf16 stays bf16, f16 and f32 come as f32.
    ///
    /// # Errors
    /// Missing (with the nearest name), another shape or a type that is no float, a value that is not finite.
    pub fn float(&self, name: &str, shape: &[usize]) -> Result<FloatValues, WeightsError> {
        let _ = (name, shape);
        todo!()
    }

    /// Takes a float tensor as f32.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let _ = (name, shape);
        todo!()
    }

    /// Takes linear `name` [n,k] in the scheme `quantization` lists for it (float without one).
    ///
    /// # Errors
    /// As [`Self::float`]; contents that break the number format.
    pub fn linear(
        &self,
        name: &str,
        (n, k): (usize, usize),
        bias: bool,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<LinearWeights, WeightsError> {
        let _ = (name, n, k, bias, quantization);
        todo!()
    }

    /// Names of all tensors, in ascending order.
    pub fn names(&self) -> Vec<String> {
        todo!()
    }

    /// Type, shape and bytes of a tensor as they are stored, without using it up: what a quantizer copies unchanged.
    ///
    /// # Errors
    /// Missing (with the nearest name).
    pub fn raw(&self, name: &str) -> Result<(Dtype, &[usize], &[u8]), WeightsError> {
        let _ = name;
        todo!()
    }

    /// Lets the system drop the mapped pages read so far, so that resident memory stays small.
    pub fn release_pages(&self) {
        todo!()
    }

    /// Refuses tensors that nothing took, except those known to carry no information.
    ///
    /// # Errors
    /// The names of unused tensors.
    pub fn finish(&self) -> Result<(), WeightsError> {
        todo!()
    }
}
