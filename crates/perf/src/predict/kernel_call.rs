//! A call: a kernel in a configuration on a product. This is what a model is asked for.

use crate::data::Row;
use crate::product::Product;

/// A product and the way it is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelCall<'a> {
    /// `op_types_arch`: `gemm_w4a8_sm90`, `cublas_bf16`.
    pub kernel: &'a str,
    /// The kernel's size, as its own `Display` writes it; empty for a library's.
    pub config: &'a str,
    /// The product.
    pub product: Product<'a>,
}

impl<'a> KernelCall<'a> {
    /// What a row measured. An empty configuration of a CPU kernel means that with the most rows; `KernelConfig::of_row`
    /// knows its threads.
    pub fn of_row(row: &'a Row) -> Self {
        Self {
            kernel: &row.kernel,
            config: &row.config,
            product: row.product(),
        }
    }
}
