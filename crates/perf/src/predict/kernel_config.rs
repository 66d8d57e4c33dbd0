//! A kernel in one configuration: the facts of it that do not depend on the product.

use std::borrow::Cow;

use dualgrain_format::GroupSize;
use serde::{Deserialize, Serialize};

use crate::data::{Cut, Row};
use crate::error::PerfError;
use crate::group_number;
use crate::operands::{INT8_LIBRARY, INT8_LIBRARY_WORD, int8_library_takes};
use crate::product::{Layout, Product};

/// Kernels whose names begin so compute `A[M,K] * B[N,K]^T` and nothing else.
const LINEARS: [&str; 3] = ["gemm_", "gemv_", "cublaslt_"];

/// The facts of a kernel in one configuration. A number that the kernel does not have is 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelConfig {
    /// The kernel, `op_types_arch`.
    pub kernel: String,
    /// The name of the configuration.
    pub config: String,
    /// Columns that share a group scale; the whole row where the kernel has no group scales. The file holds its number.
    #[serde(with = "group_number")]
    pub group_size: GroupSize,
    /// Type of D.
    pub output: String,
    /// Tokens of a tile.
    pub tile_m: usize,
    /// Output features of a tile.
    pub tile_n: usize,
    /// Columns of K in a step.
    pub tile_k: usize,
    /// Slots of the shared-memory ring.
    pub stages: usize,
    /// Threads of a CTA; worker threads on a CPU.
    pub threads: usize,
    /// CTAs of a cluster.
    pub cluster: usize,
    /// CTAs (or warp groups) that share a tile's K by design.
    pub split_k: usize,
    /// Which tiles are cut along K in addition.
    pub cut: Cut,
    /// CTAs that a multiprocessor holds at once.
    pub ctas_per_sm: usize,
    /// Share of a multiprocessor's threads in use.
    pub occupancy: f64,
    /// Registers of a thread.
    pub registers: usize,
    /// Shared memory of a CTA.
    pub shared_bytes: usize,
    /// Rows of this configuration that the model learned from.
    pub num_rows: usize,
    /// Fewest tokens it was measured with.
    pub least_m: usize,
    /// Most tokens it was measured with.
    pub most_m: usize,
}

impl KernelConfig {
    /// The configuration of a row.
    pub fn of_row(row: &Row) -> Self {
        Self {
            kernel: row.kernel.clone(),
            config: config_name(row).into_owned(),
            group_size: row.group_size,
            output: row.output.clone(),
            tile_m: row.tile_m,
            tile_n: row.tile_n,
            tile_k: row.tile_k,
            stages: row.stages,
            threads: row.threads,
            cluster: row.cluster,
            split_k: row.split_k,
            cut: row.cut,
            ctas_per_sm: row.ctas_per_sm,
            occupancy: row.occupancy,
            registers: row.registers,
            shared_bytes: row.shared_bytes,
            num_rows: 1,
            least_m: row.m,
            most_m: row.m,
        }
    }

    /// Refuses a product that the kernel cannot run. Every prediction asks, so names are compared last.
    ///
    /// # Errors
    /// More tokens than the tile of a GEMV kernel holds, sizes that the integer library does not take, or a layout or factors
    /// where the kernel computes `A[M,K] * B[N,K]^T` only.
    pub fn check(&self, product: &Product<'_>) -> Result<(), PerfError> {
        let &Product {
            m,
            n,
            k,
            layout,
            alpha,
            beta,
            ..
        } = product;
        if m > self.tile_m && self.kernel.starts_with("gemv_") {
            return self.refuse(
                "M",
                m.to_string(),
                format!("at most {}, the tile of {},", self.tile_m, self.config),
            );
        }
        if !int8_library_takes((n, k)) && self.kernel == INT8_LIBRARY {
            let expected = format!("multiples of {INT8_LIBRARY_WORD}");
            return self.refuse("N x K", format!("{n} x {k}"), expected);
        }
        let is_linear = layout == Layout::Nt && alpha == 1.0 && beta == 0.0;
        if !is_linear && LINEARS.iter().any(|begin| self.kernel.starts_with(begin)) {
            let got = format!("({layout}, {alpha}, {beta})");
            return self.refuse("(layout, alpha, beta)", got, "(NT, 1, 0)".to_owned());
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self, what: &'static str, got: String, expected: String) -> Result<(), PerfError> {
        let expected = format!("{expected} for {}", self.kernel);
        Err(PerfError::Shape { what, expected, got })
    }

    /// The key of the configuration in the index, which is sorted by it.
    pub fn key(&self) -> (&str, &str, usize, &str) {
        (
            &self.kernel,
            &self.config,
            group_number::of(self.group_size),
            &self.output,
        )
    }
}

/// The name of a row's configuration. The only thing to choose for a CPU kernel is the number of its threads: `t2`.
pub(crate) fn config_name(row: &Row) -> Cow<'_, str> {
    let threads_alone = row.config.is_empty() && row.threads > 0 && row.tile_m == 0;
    match threads_alone {
        true => Cow::Owned(format!("t{}", row.threads)),
        false => Cow::Borrowed(&row.config),
    }
}

/// A product as the kernel of a configuration takes it: a kernel without group scales takes any group size.
pub(crate) fn in_groups_of<'a>(facts: &KernelConfig, product: &Product<'a>) -> Product<'a> {
    let group_size = match facts.kernel.contains("w4") {
        true => product.group_size,
        false => facts.group_size,
    };
    Product {
        group_size,
        ..*product
    }
}

/// Whether a kernel has the name that is asked for, or multiplies the types that are.
pub(crate) fn answers_to(kernel: &str, asked: &str) -> bool {
    kernel == asked || kernel.split('_').any(|part| part == asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_refuse_what_they_have_no_way_to_run() {
        let facts = |kernel: &str| KernelConfig {
            kernel: kernel.to_owned(),
            config: "m8".to_owned(),
            group_size: GroupSize::WholeRow,
            output: "bf16".to_owned(),
            tile_m: 8,
            tile_n: 64,
            tile_k: 64,
            stages: 1,
            threads: 128,
            cluster: 1,
            split_k: 1,
            cut: Cut::Whole,
            ctas_per_sm: 1,
            occupancy: 0.5,
            registers: 32,
            shared_bytes: 0,
            num_rows: 1,
            least_m: 1,
            most_m: 8,
        };
        let plain = Product::new(9, 32_001, 4_096);
        let turned = Product {
            layout: Layout::Nn,
            ..plain
        };
        let added = Product { beta: 2.0, ..plain };
        let refused = |kernel: &str, product: &Product<'_>| {
            let error = facts(kernel).check(product).err();
            error.map_or(String::new(), |error| error.to_string())
        };
        assert_eq!(
            refused("gemv_w4a8_sm90", &plain),
            "M is 9, expected at most 8, the tile of m8, for gemv_w4a8_sm90"
        );
        assert_eq!(
            refused("cublaslt_int8", &plain),
            "N x K is 32001 x 4096, expected multiples of 16 for cublaslt_int8"
        );
        for kernel in ["gemm_w4a8_sm90", "gemm_w8a8_amx", "gemm_f32_avx2"] {
            assert_eq!(refused(kernel, &plain), "");
            assert!(refused(kernel, &turned).contains("is (NN, 1, 0), expected (NT, 1, 0)"));
            assert!(refused(kernel, &added).contains("is (NT, 1, 2), expected (NT, 1, 0)"));
        }
        for product in [&plain, &turned, &added] {
            assert_eq!(refused("cublas_bf16", product), "");
            assert_eq!(refused("sgemm_tiled", product), "");
        }
    }
}
