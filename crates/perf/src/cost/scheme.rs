//! The scheme of a model's linears: how they are stored and multiplied, and which kernels do so.

use std::fmt;

use serde::Serialize;

use crate::operands::{ArithmeticUnit, OperandTypes};

/// How the linears of a model are stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// 4-bit weights, 8-bit activations.
    W4a8,
    /// 8-bit weights and activations.
    W8a8,
    /// 16-bit floats.
    Bf16,
}

impl Scheme {
    /// Those of `kernels` that multiply so. A CPU without 16-bit arithmetic multiplies floats in 32 bits; kernels whose operands
    /// cannot be told from their names are left out.
    pub fn kernels<'a>(self, kernels: &[&'a str]) -> Vec<&'a str> {
        let those = |wanted: &dyn Fn(&str, OperandTypes) -> bool| -> Vec<&'a str> {
            let fits = |kernel: &&str| {
                OperandTypes::of_kernel(kernel).is_ok_and(|operand_types| wanted(kernel, operand_types))
            };
            kernels.iter().copied().filter(fits).collect()
        };
        let integers = |b_bits: f64| {
            those(&move |_, operand_types| {
                operand_types.unit == ArithmeticUnit::Int8 && operand_types.b_bits == b_bits
            })
        };
        let floats = |unit: ArithmeticUnit, word: &'static str| {
            those(&move |kernel, operand_types| {
                operand_types.unit == unit
                    && operand_types.a_bits == operand_types.b_bits
                    && kernel.contains(word)
            })
        };
        match self {
            Self::W4a8 => integers(4.0),
            Self::W8a8 => integers(8.0),
            Self::Bf16 => [
                floats(ArithmeticUnit::Half, "bf16"),
                floats(ArithmeticUnit::Half, ""),
                floats(ArithmeticUnit::Float, ""),
            ]
            .into_iter()
            .find(|kernels| !kernels.is_empty())
            .unwrap_or_default(),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::W4a8 => "w4a8",
            Self::W8a8 => "w8a8",
            Self::Bf16 => "bf16",
        })
    }
}
