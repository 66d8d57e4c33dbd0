//! The floats that blocks of codes mean: those of ggml, in its order of operations, each rounded to f32.

use half::{bf16, f16};

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufKind {
    /// 32-bit floats.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 32 codes of 4 bits with a scale: `d * (q - 8)`.
    Q4_0,
    /// 32 codes of 4 bits with a scale and a minimum: `d * q + m`.
    Q4_1,
    /// 32 codes of 5 bits: `d * (q - 16)`.
    Q5_0,
    /// 32 codes of 5 bits: `d * q + m`.
    Q5_1,
    /// 32 codes of 8 bits: `d * q`.
    Q8_0,
    /// 256 codes of 4 bits in eight groups whose scales and minima have 6 bits.
    Q4K,
    /// As [`Self::Q4K`] with codes of 5 bits.
    Q5K,
    /// 256 codes of 6 bits in sixteen groups whose scales have 8 bits.
    Q6K,
}

/// Codes of a block of the kinds with `K` in their names.
const LARGE: usize = 256;

impl GgufKind {
    /// What is read, for messages.
    pub const ALL_NAMES: &'static str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K";

    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The kind with a number of the format.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Its number in the format.
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// Elements and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (LARGE, 144),
            Self::Q5K => (LARGE, 176),
            Self::Q6K => (LARGE, 210),
        }
    }

    /// Bytes of a row of so many elements; `None` where they are no whole blocks.
    pub fn row_bytes(self, row: usize) -> Option<usize> {
        let (len, bytes) = self.block();
        match row.is_multiple_of(len) {
            true => (row / len).checked_mul(bytes),
            false => None,
        }
    }

    /// Bytes of a tensor; `None` where rows are no whole blocks, or beyond what can be counted.
    pub fn num_bytes(self, shape: &[usize]) -> Option<usize> {
        // A size of 0 hides what the others multiply to, and readers multiply some of them, and by the bits of a float.
        let mut sizes = shape.iter().filter(|&&size| size > 0);
        sizes.try_fold(32_usize, |product, &size| product.checked_mul(size))?;
        let (&row, rows) = shape.split_last()?;
        let row_bytes = self.row_bytes(row)?;
        rows.iter()
            .try_fold(row_bytes, |bytes, &size| bytes.checked_mul(size))
    }

    /// The floats of whole blocks.
    pub fn read(self, bytes: &[u8], out: &mut [f32]) {
        let (len, size) = self.block();
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
            self.read_block(block, out);
        }
    }

    fn read_block(self, block: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => out[0] = half_at(block, 0),
            Self::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::Q8_0 => {
                let d = half_at(block, 0);
                let codes = block[2..].iter().map(|byte| f32::from(byte.cast_signed()));
                out.iter_mut().zip(codes).for_each(|(value, q)| *value = d * q);
            }
            Self::Q4_0 => small(out, &block[2..], None, |q| half_at(block, 0) * (q - 8.0)),
            Self::Q4_1 => small(out, &block[4..], None, |q| {
                half_at(block, 0) * q + half_at(block, 2)
            }),
            Self::Q5_0 => small(out, &block[6..], Some(&block[2..6]), |q| {
                half_at(block, 0) * (q - 16.0)
            }),
            Self::Q5_1 => small(out, &block[8..], Some(&block[4..8]), |q| {
                half_at(block, 0) * q + half_at(block, 2)
            }),
            Self::Q4K => large(out, block, None),
            Self::Q5K => large(out, block, Some(&block[16..48])),
            Self::Q6K => six_bits(out, block),
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// 32 codes: the first half in the low nibbles of 16 bytes, the second in the high ones; `fifth` has a bit more for each.
fn small(out: &mut [f32], nibbles: &[u8], fifth: Option<&[u8]>, float: impl Fn(f32) -> f32) {
    for (i, value) in out.iter_mut().enumerate() {
        let nibble = nibbles[i % 16] >> (4 * (i / 16)) & 15;
        let high = fifth.map_or(0, |bits| bits[i / 8] >> (i % 8) & 1);
        *value = float(f32::from(nibble | high << 4));
    }
}

/// Eight groups of 32: `(d * scale) * q - (dmin * min)`. A pair of groups shares 32 bytes; `fifth` has a bit of every group in each byte.
fn large(out: &mut [f32], block: &[u8], fifth: Option<&[u8]>) {
    let (d, dmin, scales) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    let nibbles = &block[if fifth.is_some() { 48 } else { 16 }..];
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = six_bit_pair(scales, group);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (i, value) in out.iter_mut().enumerate() {
            let nibble = nibbles[group / 2 * 32 + i] >> (4 * (group % 2)) & 15;
            let high = fifth.map_or(0, |bits| bits[i] >> group & 1);
            *value = scale * f32::from(nibble | high << 4) - min;
        }
    }
}

/// Scale and minimum of a group, six bits each in twelve bytes.
fn six_bit_pair(scales: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (scales[group] & 63, scales[group + 4] & 63),
        _ => (
            scales[group + 4] & 15 | scales[group - 4] >> 6 << 4,
            scales[group + 4] >> 4 | scales[group] >> 6 << 4,
        ),
    }
}

/// Sixteen groups of 16: `(d * scale) * (q - 32)`. Each half of the block has 64 bytes of low nibbles and 32 of pairs of bits.
fn six_bits(out: &mut [f32], block: &[u8]) {
    let (low, high, scales, d) = (
        &block[..128],
        &block[128..192],
        &block[192..208],
        half_at(block, 208),
    );
    for (place, value) in out.iter_mut().enumerate() {
        let (part, quarter, i) = (place / 128, place % 128 / 32, place % 32);
        let nibble = low[64 * part + 32 * (quarter % 2) + i] >> (4 * (quarter / 2)) & 15;
        let pair = high[32 * part + i] >> (2 * quarter) & 3;
        let code = f32::from(nibble | pair << 4) - 32.0;
        *value = d * f32::from(scales[place / 16].cast_signed()) * code;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_can_not_be_counted_are_none_whatever_hides_them() {
        let large = 1_usize << 40;
        assert_eq!(GgufKind::F32.num_bytes(&[0, 8]), Some(0));
        assert_eq!(GgufKind::Q8_0.num_bytes(&[2, 64]), Some(2 * 2 * 34));
        for shape in [[0, large, large], [large, large, 0], [large, 0, large]] {
            assert_eq!(GgufKind::F16.num_bytes(&shape), None, "{shape:?}");
        }
        assert_eq!(GgufKind::F32.num_bytes(&[0, 1 << 62]), None);
    }
}
