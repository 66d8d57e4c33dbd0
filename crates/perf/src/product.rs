//! A matrix product: its sizes, how its operands are stored, its factors and its output type.

use std::fmt;

use dualgrain_format::{GroupSize, K_MAX};
use serde::{Deserialize, Serialize};

use crate::error::PerfError;

/// Most tokens and output features of a product that is measured or predicted: sizes on a card have 32 bits. A reduction has
/// [`K_MAX`] columns at most, or its sums would leave 32 bits.
pub const LONGEST_SIDE: usize = 0x7fff_0000;

/// A product, `D = alpha * A * B + beta * D`, whatever kernel runs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product<'a> {
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Reduction.
    pub k: usize,
    /// Columns that share a group scale; the whole row for kernels without group scales.
    pub group_size: GroupSize,
    /// How the operands are stored.
    pub layout: Layout,
    /// Factor of the product.
    pub alpha: f64,
    /// Factor of what D held before.
    pub beta: f64,
    /// Type of D: `f32`, `f16`, `bf16`, `i32`; empty takes the type each kernel was mostly measured with.
    pub output: &'a str,
}

impl<'a> Product<'a> {
    /// `D = A[M,K] * B[N,K]^T` in groups of 128, as the project's own linears run.
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            group_size: GroupSize::Along(128),
            layout: Layout::Nt,
            alpha: 1.0,
            beta: 0.0,
            output: "",
        }
    }

    /// Operations; a multiplication and an addition count as two.
    pub fn ops(&self) -> f64 {
        ops((self.m, self.n, self.k))
    }

    /// Refuses a product that no machine runs.
    ///
    /// # Errors
    /// A side of zero or beyond [`LONGEST_SIDE`] ([`K_MAX`] for K), or a factor that is not finite.
    pub fn check(&self) -> Result<(), PerfError> {
        for (what, got, most) in [
            ("M", self.m, LONGEST_SIDE),
            ("N", self.n, LONGEST_SIDE),
            ("K", self.k, K_MAX),
        ] {
            if got == 0 || got > most {
                return Err(PerfError::Shape {
                    what,
                    expected: format!("1 to {most}"),
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

/// Which operands are stored transposed. The first letter is A's, the second B's; the project's own products are `NT`:
/// `A[M,K]` row by row times `B[N,K]` row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// `A[M,K]`, `B[K,N]`.
    Nn,
    /// `A[M,K]`, `B[N,K]`.
    Nt,
    /// `A[K,M]`, `B[K,N]`.
    Tn,
    /// `A[K,M]`, `B[N,K]`.
    Tt,
}

impl Layout {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Nn, Self::Nt, Self::Tn, Self::Tt];
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nn => "NN",
            Self::Nt => "NT",
            Self::Tn => "TN",
            Self::Tt => "TT",
        })
    }
}

/// Operations of a product; a multiplication and an addition count as two.
pub(crate) fn ops((m, n, k): (usize, usize, usize)) -> f64 {
    2.0 * m as f64 * n as f64 * k as f64
}

#[cfg(test)]
mod tests {
    use super::*;

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
