//! What is asked of a model: a product, and the kernel and size that would run it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::data::{Cut, Layout, Row};
use crate::error::PerfError;

/// A product and the way it is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Query<'a> {
    /// `op_types_arch`: `gemm_w4a8_sm90`, `cublas_bf16`.
    pub kernel: &'a str,
    /// The kernel's size, as its own `Display` writes it; empty for a library's.
    pub config: &'a str,
    /// The product.
    pub product: Product<'a>,
}

/// A product, whatever runs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product<'a> {
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Reduction.
    pub k: usize,
    /// Columns that share a group scale; 0 where there are none, or one a row.
    pub group_size: usize,
    /// Storage of the operands.
    pub layout: Layout,
    /// Factor of the product.
    pub alpha: f64,
    /// Factor of what was in D.
    pub beta: f64,
    /// Type of D: `f32`, `f16`, `bf16`, `i32`; empty takes the type each kernel was mostly measured with.
    pub output: &'a str,
}

/// NVIDIA's library for integers, which takes whole words of N and K.
const INT8_LIBRARY: &str = "cublaslt_int8";
const INT8_LIBRARY_WORD: usize = 16;

/// Whether NVIDIA's library for integers takes weights of so many rows and columns.
pub(crate) fn int8_library_takes((n, k): (usize, usize)) -> bool {
    n.is_multiple_of(INT8_LIBRARY_WORD) && k.is_multiple_of(INT8_LIBRARY_WORD)
}

/// How the names of kernels begin that compute `A[M,K] * B[N,K]^T` and nothing else.
const LINEARS: [&str; 3] = ["gemm_", "gemv_", "cublaslt_"];

/// Longest side of a product that is measured or predicted: what 32-bit sizes on a card hold.
pub const LONGEST_SIDE: usize = 0x7fff_0000;

impl<'a> Product<'a> {
    /// `D = A[M,K] * B[N,K]^T` in groups of 128, as the project's own linears run.
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            group_size: 128,
            layout: Layout::Nt,
            alpha: 1.0,
            beta: 0.0,
            output: "",
        }
    }

    /// Operations, multiply and add counted apart.
    pub fn ops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// The product that a row measured.
    pub fn of_row(row: &'a Row) -> Self {
        Self {
            m: row.m,
            n: row.n,
            k: row.k,
            group_size: row.group_size,
            layout: row.layout,
            alpha: row.alpha,
            beta: row.beta,
            output: &row.output,
        }
    }

    /// Refuses what no machine runs.
    ///
    /// # Errors
    /// A side of zero or too long, or factors that are no numbers.
    pub fn check(&self) -> Result<(), PerfError> {
        for (what, got) in [("M", self.m), ("N", self.n), ("K", self.k)] {
            if got == 0 || got > LONGEST_SIDE {
                return Err(PerfError::Shape {
                    what,
                    expected: format!("1 to {LONGEST_SIDE}"),
                    got: got.to_string(),
                });
            }
        }
        for (what, got) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !got.is_finite() {
                return Err(PerfError::Shape {
                    what,
                    expected: "a finite number".to_owned(),
                    got: got.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl<'a> Query<'a> {
    /// What a row measured. An empty configuration of a CPU kernel means that with the most rows; [`ConfigFacts::of_row`]
    /// knows its threads.
    pub fn of_row(row: &'a Row) -> Self {
        Self {
            kernel: &row.kernel,
            config: &row.config,
            product: Product::of_row(row),
        }
    }
}

/// Facts of a kernel in one size that do not depend on the product. Numbers a kernel does not have are 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigFacts {
    /// `op_types_arch`.
    pub kernel: String,
    /// The kernel's size.
    pub config: String,
    /// Columns that share a group scale.
    pub group_size: usize,
    /// Type of D.
    pub output: String,
    /// Tokens of a tile.
    pub tile_m: usize,
    /// Output features of a tile.
    pub tile_n: usize,
    /// Columns of K of a step.
    pub tile_k: usize,
    /// Slots of the shared-memory ring.
    pub stages: usize,
    /// Threads of a CTA; worker threads on a CPU.
    pub threads: usize,
    /// CTAs of a cluster.
    pub cluster: usize,
    /// CTAs (or warp groups) that share a tile's K by design.
    pub split_k: usize,
    /// Which tiles are cut along K besides.
    pub cut: Cut,
    /// CTAs a multiprocessor holds at once.
    pub ctas_per_sm: usize,
    /// Share of a multiprocessor's threads in use.
    pub occupancy: f64,
    /// Registers of a thread.
    pub registers: usize,
    /// Shared memory of a CTA.
    pub shared_bytes: usize,
    /// Rows the model learned this configuration from.
    pub num_rows: usize,
    /// Fewest tokens it was measured with.
    pub least_m: usize,
    /// Most tokens it was measured with.
    pub most_m: usize,
}

impl ConfigFacts {
    /// The facts of a row's configuration.
    pub fn of_row(row: &Row) -> Self {
        Self {
            kernel: row.kernel.clone(),
            config: config_of(row).into_owned(),
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

    /// Refuses a product that the kernel has no way to run. Names are looked at last, because every prediction asks.
    ///
    /// # Errors
    /// More tokens than a strip's tile holds, sizes that the integer library does not take, a layout or factors where the kernel
    /// knows only `A[M,K] * B[N,K]^T`.
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

    /// What identifies it in a catalogue, which is sorted by it.
    pub fn key(&self) -> (&str, &str, usize, &str) {
        (&self.kernel, &self.config, self.group_size, &self.output)
    }
}

/// The name of a row's configuration. A CPU kernel has no sizes to choose but the number of its threads: `t2`.
pub(crate) fn config_of(row: &Row) -> Cow<'_, str> {
    let threads_alone = row.config.is_empty() && row.threads > 0 && row.tile_m == 0;
    match threads_alone {
        true => Cow::Owned(format!("t{}", row.threads)),
        false => Cow::Borrowed(&row.config),
    }
}

/// What a kernel multiplies, told from its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operands {
    /// Bits of an element of A.
    pub a_bits: f64,
    /// Bits of an element of B, scales apart.
    pub b_bits: f64,
    /// Units that multiply.
    pub unit: Unit,
}

/// Arithmetic a machine has a ceiling for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// 8-bit integers.
    Int8,
    /// 16-bit floats.
    Half,
    /// 32-bit floats.
    Float,
}

/// Words of a kernel's name and what they mean.
const OPERANDS: [(&str, f64, f64, Unit); 12] = [
    ("w4a8", 8.0, 4.0, Unit::Int8),
    ("w4a16", 16.0, 4.0, Unit::Half),
    ("w8a8", 8.0, 8.0, Unit::Int8),
    ("int8", 8.0, 8.0, Unit::Int8),
    ("i8", 8.0, 8.0, Unit::Int8),
    ("bf16", 16.0, 16.0, Unit::Half),
    ("f16", 16.0, 16.0, Unit::Half),
    ("half", 16.0, 16.0, Unit::Half),
    ("sgemm", 32.0, 32.0, Unit::Float),
    ("f32", 32.0, 32.0, Unit::Float),
    ("fp32", 32.0, 32.0, Unit::Float),
    ("float", 32.0, 32.0, Unit::Float),
];

impl Operands {
    /// Reads a kernel's name, `op_types_arch`.
    ///
    /// # Errors
    /// A name without a type this program knows.
    pub fn of_kernel(kernel: &str) -> Result<Self, PerfError> {
        let known = OPERANDS
            .iter()
            .find(|(word, ..)| kernel.split('_').any(|part| part == *word));
        match known {
            Some(&(_, a_bits, b_bits, unit)) => Ok(Self { a_bits, b_bits, unit }),
            None => Err(PerfError::UnknownKernel {
                got: kernel.to_owned(),
                hint: format!(
                    "its name holds none of the types {}",
                    OPERANDS.map(|(word, ..)| word).join(", ")
                ),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_say_what_they_multiply_in_their_names() {
        let unit = |kernel| Operands::of_kernel(kernel).map(|operands| operands.unit);
        assert_eq!(unit("gemm_w4a8_sm90").unwrap(), Unit::Int8);
        assert_eq!(unit("cublaslt_int8").unwrap(), Unit::Int8);
        assert_eq!(unit("cublas_bf16").unwrap(), Unit::Half);
        assert_eq!(unit("sgemm_tiled").unwrap(), Unit::Float);
        let error = unit("gemm_tern_sm90").unwrap_err().to_string();
        assert!(
            error.contains("gemm_tern_sm90") && error.contains("w4a8"),
            "{error}"
        );
    }

    #[test]
    fn kernels_refuse_what_they_have_no_way_to_run() {
        let facts = |kernel: &str| ConfigFacts {
            kernel: kernel.to_owned(),
            config: "m8".to_owned(),
            group_size: 0,
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

    #[test]
    fn products_no_machine_runs_are_refused_in_words() {
        assert!(Product::new(1, 1, 1).check().is_ok());
        for product in [
            Product::new(0, 1, 1),
            Product::new(1, usize::MAX, 1),
            Product {
                alpha: f64::NAN,
                ..Product::new(1, 1, 1)
            },
        ] {
            let error = product.check().unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
    }
}
