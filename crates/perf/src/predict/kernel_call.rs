//! A call: a kernel in a configuration on a product. This is what a model is asked for.

use crate::data::Row;
use crate::product::Product;

/// A kernel in a configuration on a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelCall<'a> {
    /// The kernel, `op_types_arch`: `gemm_w4a8_sm90`, `cublas_bf16`.
    pub kernel: &'a str,
    /// The name of the configuration; empty for a library.
    pub config: &'a str,
    /// The product.
    pub product: Product<'a>,
}

impl<'a> KernelCall<'a> {
    /// The call that a row measured. The row of a CPU kernel names no configuration, and an empty name stands for the
    /// configuration with the most rows; `KernelConfig::of_row` knows the threads.
    pub fn of_row(row: &'a Row) -> Self {
        Self {
            kernel: &row.kernel,
            config: &row.config,
            product: row.product(),
        }
    }
}
