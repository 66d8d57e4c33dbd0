//! Linears in blocks of 32.

use dualgrain_format::{Int8Linear, QuantizedLinear, int4};
use half::f16;

use crate::error::ExportError;
use crate::folding::{Folding, ScalePlace};

/// Weights of a block.
pub const BLOCK: usize = 32;
/// Bytes of the codes of a block of 4-bit codes.
const CODE_BYTES: usize = BLOCK / 2;

/// A 4-bit linear as Q4_1: `d = s1 * s2` and `m = -zero * d`, the same in every block of a group.
///
/// # Errors
/// A scale, or a zero point times its scale, that 16 bits can not hold.
pub fn q4_1(name: &str, linear: &QuantizedLinear, folding: &mut Folding) -> Result<Vec<u8>, ExportError> {
    let mut bytes = Vec::with_capacity(linear.n() * linear.k() / BLOCK * (4 + CODE_BYTES));
    for row in 0..linear.n() {
        let scales = row_scales(name, linear, row, folding)?;
        let blocks = linear.q_row(row).as_chunks::<CODE_BYTES>().0;
        let group_len = linear.group_size().len(linear.k());
        for (block, codes) in blocks.iter().enumerate() {
            let (d, m) = scales.get(block * BLOCK / group_len).copied().unwrap_or_default();
            bytes.extend(d.to_le_bytes());
            bytes.extend(m.to_le_bytes());
            bytes.extend(halves(codes));
        }
    }
    Ok(bytes)
}

/// `d` and `m` of the groups of a row.
fn row_scales(
    linear_name: &str,
    linear: &QuantizedLinear,
    row: usize,
    folding: &mut Folding,
) -> Result<Vec<(f16, f16)>, ExportError> {
    let (s1, zeros) = (linear.s1()[row], linear.zero_row(row));
    let groups = linear.s2_row(row).iter().enumerate();
    let scale = |(group, &s2): (usize, &u8)| {
        let place = ScalePlace {
            linear: linear_name,
            row,
            group,
        };
        let d = folding.fold(place, s1, s2)?;
        let least = -f64::from(int4::at(zeros, group)) * d.to_f64();
        let m = f16::from_f64(least);
        match m.is_finite() {
            true => Ok((d, m)),
            false => Err(folding.error(place, least, "times its zero point overflows")),
        }
    };
    groups.map(scale).collect()
}

/// From neighbours in a byte to halves: byte i holds code i and code i + 16.
fn halves(codes: &[u8; CODE_BYTES]) -> [u8; CODE_BYTES] {
    std::array::from_fn(|index| int4::at(codes, index) | int4::at(codes, index + CODE_BYTES) << 4)
}

/// An 8-bit linear as Q8_0: the row's scale in every block.
///
/// # Errors
/// A scale that 16 bits can not hold.
pub fn q8_0(name: &str, linear: &Int8Linear, folding: &mut Folding) -> Result<Vec<u8>, ExportError> {
    let mut bytes = Vec::with_capacity(linear.n() * linear.k() / BLOCK * (2 + BLOCK));
    let rows = linear.w8().chunks_exact(linear.k().max(1)).zip(linear.s1());
    for (row, (codes, &s1)) in rows.enumerate() {
        let place = ScalePlace {
            linear: name,
            row,
            group: 0,
        };
        let d = folding.fold(place, s1, 1)?;
        for block in codes.chunks_exact(BLOCK) {
            bytes.extend(d.to_le_bytes());
            bytes.extend(block.iter().map(|code| code.cast_unsigned()));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::ExportFormat;
    use dualgrain_format::{GroupSize, QuantizedParts};

    /// What a reader of the format computes.
    fn values(bytes: &[u8]) -> Vec<f32> {
        let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        let mut values = Vec::new();
        for block in bytes.chunks_exact(20) {
            let (d, m) = (half(&block[..2]), half(&block[2..4]));
            values.extend(block[4..].iter().map(|byte| d * f32::from(byte & 15) + m));
            values.extend(block[4..].iter().map(|byte| d * f32::from(byte >> 4) + m));
        }
        values
    }

    #[test]
    fn blocks_of_4_bits_hold_the_weights_of_their_groups() {
        // 96 weights in groups of 64: the second group is one block.
        let codes: Vec<u8> = (0..96_u8).map(|column| column % 16 * 7 % 16).collect();
        let (mut q, mut zero) = (Vec::new(), Vec::new());
        int4::pack_row(&codes, 0, &mut q);
        int4::pack_row(&[3, 9], 0, &mut zero);
        let parts = QuantizedParts {
            q,
            zero,
            s2: vec![4, 2],
            s1: vec![0.25],
            bias: None,
            ta: None,
        };
        let linear = QuantizedLinear::new((1, 96), GroupSize::Along(64), parts).unwrap();
        let bytes = q4_1("a", &linear, &mut Folding::new(ExportFormat::Gguf)).unwrap();
        let mut w8 = [0; 96];
        linear.w8_row(0, &mut w8);
        let expected: Vec<f32> = w8.iter().map(|&w| 0.25 * f32::from(w)).collect();
        assert_eq!(values(&bytes), expected);
    }

    #[test]
    fn blocks_of_8_bits_repeat_the_scale_of_their_row() {
        let w8: Vec<i8> = (0..128).map(|index| index as i8 - 64).collect();
        let linear = Int8Linear::new((2, 64), w8.clone(), vec![0.5, 2.0], None, None).unwrap();
        let bytes = q8_0("a", &linear, &mut Folding::new(ExportFormat::Gguf)).unwrap();
        assert_eq!(bytes.len(), 4 * 34);
        let scales = bytes
            .chunks_exact(34)
            .map(|block| f16::from_le_bytes([block[0], block[1]]).to_f32());
        assert!(scales.eq([0.5, 0.5, 2.0, 2.0]));
        let codes = bytes.chunks_exact(34).flat_map(|block| &block[2..]);
        assert!(codes.map(|byte| byte.cast_signed()).eq(w8));
    }
}
