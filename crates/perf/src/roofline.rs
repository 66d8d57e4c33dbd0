//! The roofline of a product: its operations, its bytes, and the least time that the ceilings of a machine allow for
//! both.

use dualgrain_format::GroupSize;

use crate::error::PerfError;
use crate::machine::Machine;
use crate::operands::{ArithmeticUnit, OperandTypes};
use crate::product::Product;

/// Bytes of a group's scale and zero point.
const GROUP_BYTES: f64 = 1.5;
/// Bytes of a channel's, or a token's, scale.
const SCALE_BYTES: f64 = 4.0;

/// Bytes and operations of a product, and the seconds that they take at best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roofline {
    /// Operations; a multiplication and an addition count as two.
    pub ops: f64,
    /// Weights with their scales.
    pub weight_bytes: f64,
    /// Activations.
    pub token_bytes: f64,
    /// D; twice where it is read as well as written.
    pub output_bytes: f64,
    /// Seconds to move all bytes once.
    pub memory_s: f64,
    /// Seconds to compute.
    pub compute_s: f64,
    /// Seconds per byte of memory.
    byte_s: f64,
}

impl Roofline {
    /// The roofline of a product on a machine.
    pub fn new(operand_types: &OperandTypes, product: &Product<'_>, output: &str, machine: &Machine) -> Self {
        let (m, n, k) = (product.m as f64, product.n as f64, product.k as f64);
        let groups = match product.group_size {
            GroupSize::WholeRow => 0.0,
            GroupSize::Along(size) => n * (k / size as f64).ceil(),
        };
        let scale_bytes = match operand_types.unit {
            ArithmeticUnit::Int8 => SCALE_BYTES,
            ArithmeticUnit::Half | ArithmeticUnit::Float => 0.0,
        };
        let weight_bytes = n * k * operand_types.b_bits / 8.0 + groups * GROUP_BYTES + n * scale_bytes;
        let token_bytes = m * (k * operand_types.a_bits / 8.0 + scale_bytes);
        let passes = if product.beta == 0.0 { 1.0 } else { 2.0 };
        let output_bytes = passes * m * n * element_bytes(output);
        Self {
            ops: product.ops(),
            weight_bytes,
            token_bytes,
            output_bytes,
            memory_s: (weight_bytes + token_bytes + output_bytes) / machine.read_bytes_per_s,
            compute_s: product.ops() / machine.peak_ops_per_s(operand_types.unit),
            byte_s: machine.read_bytes_per_s.recip(),
        }
    }

    /// All bytes, each counted once.
    pub fn bytes(&self) -> f64 {
        self.weight_bytes + self.token_bytes + self.output_bytes
    }

    /// Refuses a product whose operands and output do not fit the memory of a machine.
    pub(crate) fn check_fits(&self, product: &Product<'_>, machine: &Machine) -> Result<(), PerfError> {
        let passes = if product.beta == 0.0 { 1.0 } else { 2.0 };
        let held_bytes = self.weight_bytes + self.token_bytes + self.output_bytes / passes;
        if held_bytes <= machine.memory_bytes as f64 {
            return Ok(());
        }
        Err(PerfError::Shape {
            what: "the memory of operands and output",
            expected: format!("at most the {} bytes of {}", machine.memory_bytes, machine.name),
            got: format!("{held_bytes:.0} bytes"),
        })
    }

    /// Seconds to move D.
    pub(crate) fn output_s(&self) -> f64 {
        self.output_bytes * self.byte_s
    }

    /// The least time that the ceilings allow.
    pub fn roofline_s(&self) -> f64 {
        self.memory_s.max(self.compute_s)
    }
}

/// Bytes of an element of D.
pub(crate) fn element_bytes(output: &str) -> f64 {
    match output {
        "f16" | "bf16" => 2.0,
        _ => 4.0,
    }
}
