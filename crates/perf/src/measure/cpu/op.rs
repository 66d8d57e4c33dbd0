//! The operand types of CPU products.

/// Copies of the weights pass this size together, so that they come from memory as a model's do: on a Xeon whose cores share
/// 480 MB one thread reads 30 GB/s out of 64 MB, 20 out of 128 and 16 out of 256 MB or more.
pub(crate) const ROTATION_BYTES: usize = 320 << 20;

/// Types of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProductType {
    W4a8,
    W8a8,
    F32,
    Bf16,
}

impl ProductType {
    pub const ALL: [Self; 4] = [Self::W4a8, Self::W8a8, Self::F32, Self::Bf16];

    pub fn name(self) -> &'static str {
        match self {
            Self::W4a8 => "gemm_w4a8",
            Self::W8a8 => "gemm_w8a8",
            Self::F32 => "gemm_f32",
            Self::Bf16 => "gemm_bf16",
        }
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Self::W4a8 | Self::W8a8)
    }

    /// Memory that operands with their copies and outputs take together, at most.
    pub fn bytes(self, (m, n, k): (usize, usize, usize)) -> f64 {
        let (m, n, k) = (m as f64, n as f64, k as f64);
        let element = if self.is_integer() { 1.0 } else { 4.0 };
        // Drawn, in a layer, a copy of that, packed twice; small ones are packed oftener.
        let weights = 5.0 * element * n * k + ROTATION_BYTES as f64;
        // Codes and floats, here and on the device.
        let tokens = 2.0 * (1.0 + 4.0) * m * k;
        // On the device, read back, sums, those of the plain loop.
        let outputs = 4.0 * 4.0 * m * n;
        weights + tokens + outputs
    }
}
