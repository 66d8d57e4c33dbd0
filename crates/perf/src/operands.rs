//! The operand types of a kernel, read from its name `op_types_arch`, and the arithmetic units that multiply them.

use crate::error::PerfError;

/// The kernel of NVIDIA's library for integers.
pub(crate) const INT8_LIBRARY: &str = "cublaslt_int8";
/// The library takes N and K that are multiples of this.
pub(crate) const INT8_LIBRARY_WORD: usize = 16;

/// Whether NVIDIA's library for integers takes weights `[N, K]`.
pub(crate) fn int8_library_takes((n, k): (usize, usize)) -> bool {
    n.is_multiple_of(INT8_LIBRARY_WORD) && k.is_multiple_of(INT8_LIBRARY_WORD)
}

/// What a kernel multiplies, read from its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperandTypes {
    /// Bits of an element of A.
    pub a_bits: f64,
    /// Bits of an element of B, without its scales.
    pub b_bits: f64,
    /// The units of the machine that multiply.
    pub unit: ArithmeticUnit,
}

/// Units of arithmetic. A machine has a ceiling for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticUnit {
    /// 8-bit integers.
    Int8,
    /// 16-bit floats.
    Half,
    /// 32-bit floats.
    Float,
}

/// A word of a kernel's name, bits of A and of B, and the unit.
const TYPES_BY_WORD: [(&str, f64, f64, ArithmeticUnit); 12] = [
    ("w4a8", 8.0, 4.0, ArithmeticUnit::Int8),
    ("w4a16", 16.0, 4.0, ArithmeticUnit::Half),
    ("w8a8", 8.0, 8.0, ArithmeticUnit::Int8),
    ("int8", 8.0, 8.0, ArithmeticUnit::Int8),
    ("i8", 8.0, 8.0, ArithmeticUnit::Int8),
    ("bf16", 16.0, 16.0, ArithmeticUnit::Half),
    ("f16", 16.0, 16.0, ArithmeticUnit::Half),
    ("half", 16.0, 16.0, ArithmeticUnit::Half),
    ("sgemm", 32.0, 32.0, ArithmeticUnit::Float),
    ("f32", 32.0, 32.0, ArithmeticUnit::Float),
    ("fp32", 32.0, 32.0, ArithmeticUnit::Float),
    ("float", 32.0, 32.0, ArithmeticUnit::Float),
];

impl OperandTypes {
    /// Reads a kernel's name, `op_types_arch`.
    ///
    /// # Errors
    /// No word of the name is a known type.
    pub fn of_kernel(kernel: &str) -> Result<Self, PerfError> {
        let known = TYPES_BY_WORD
            .iter()
            .find(|(word, ..)| kernel.split('_').any(|part| part == *word));
        match known {
            Some(&(_, a_bits, b_bits, unit)) => Ok(Self { a_bits, b_bits, unit }),
            None => Err(PerfError::UnknownKernel {
                got: kernel.to_owned(),
                hint: format!(
                    "its name holds none of the types {}",
                    TYPES_BY_WORD.map(|(word, ..)| word).join(", ")
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
        let unit = |kernel| OperandTypes::of_kernel(kernel).map(|types| types.unit);
        assert_eq!(unit("gemm_w4a8_sm90").unwrap(), ArithmeticUnit::Int8);
        assert_eq!(unit("cublaslt_int8").unwrap(), ArithmeticUnit::Int8);
        assert_eq!(unit("cublas_bf16").unwrap(), ArithmeticUnit::Half);
        assert_eq!(unit("sgemm_tiled").unwrap(), ArithmeticUnit::Float);
        let error = unit("gemm_tern_sm90").unwrap_err().to_string();
        assert!(
            error.contains("gemm_tern_sm90") && error.contains("w4a8"),
            "{error}"
        );
    }
}
