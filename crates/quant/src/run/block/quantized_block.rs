//! What a finished block leaves.

use dualgrain_format::checkpoint::TensorBytes;

use crate::report::json::LinearReport;

/// A finished block.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedBlock {
    /// Everything that replaces tensors of the original block.
    pub tensors: Vec<TensorBytes>,
    /// Static scales of keys and values, if the options ask for them.
    pub cache_scales: Option<[f32; 2]>,
    /// One report a linear.
    pub reports: Vec<LinearReport>,
}
