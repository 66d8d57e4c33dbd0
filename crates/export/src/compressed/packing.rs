//! Codes in 32-bit words, the first code in the lowest bits.

use dualgrain_format::{QuantizedLinear, int4};

/// Rows of 4-bit codes as words of eight: the folder's own bytes, filled up with zeros to whole words.
pub fn codes(linear: &QuantizedLinear) -> Vec<u8> {
    let row_bytes = linear.k().div_ceil(8) * 4;
    let mut packed = Vec::with_capacity(linear.n() * row_bytes);
    for row in 0..linear.n() {
        let end = packed.len() + row_bytes;
        packed.extend_from_slice(linear.q_row(row));
        // The high nibble behind an odd row is padding here and there, but 0 there.
        if !linear.k().is_multiple_of(2)
            && let Some(last) = packed.last_mut()
        {
            *last &= 0x0f;
        }
        packed.resize(end, 0);
    }
    packed
}

/// Zero points as words of eight rows: word `[r, g]` has those of rows `8r` to `8r + 7` in group `g`.
pub fn zero_points(linear: &QuantizedLinear) -> Vec<u8> {
    let (n, groups) = (linear.n(), linear.num_groups());
    let mut words = vec![0_u32; n.div_ceil(8) * groups];
    for row in 0..n {
        let zeros = linear.zero_row(row);
        let of_rows = words[row / 8 * groups..].iter_mut().take(groups);
        for (group, word) in of_rows.enumerate() {
            *word |= u32::from(int4::at(zeros, group)) << (4 * (row % 8));
        }
    }
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Rows of `k` 8-bit codes as words of four, counted from -128, filled up with zeros to whole words.
pub fn bytes(w8: &[i8], k: usize) -> Vec<u8> {
    let mut packed = Vec::with_capacity(w8.len());
    for row in w8.chunks_exact(k.max(1)) {
        packed.extend(row.iter().map(|&code| code.cast_unsigned() ^ 0x80));
        packed.resize(packed.len().next_multiple_of(4), 0);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualgrain_format::{GroupSize, QuantizedParts};

    /// Nine rows of 33 codes: code k of row n is (n + k) % 16, in two groups with the zero points n and 15 - n.
    fn linear() -> QuantizedLinear {
        let (mut q, mut zero) = (Vec::new(), Vec::new());
        for row in 0..9_u8 {
            let codes: Vec<u8> = (0..33).map(|column| (row + column) % 16).collect();
            int4::pack_row(&codes, 15 - row, &mut q);
            int4::pack_row(&[row, 15 - row], 0, &mut zero);
        }
        let parts = QuantizedParts {
            q,
            zero,
            s2: vec![1; 18],
            s1: vec![1.0; 9],
            bias: None,
            ta: None,
        };
        QuantizedLinear::new((9, 33), GroupSize::Along(32), parts).unwrap()
    }

    fn nibble(bytes: &[u8], word: usize, place: usize) -> u8 {
        let four = bytes[4 * word..4 * word + 4].try_into().unwrap();
        (u32::from_le_bytes(four) >> (4 * place) & 15) as u8
    }

    #[test]
    fn words_hold_eight_codes_of_a_row_and_end_with_zeros() {
        let packed = codes(&linear());
        assert_eq!(packed.len(), 9 * 5 * 4);
        for row in 0..9 {
            for column in 0..40 {
                let expected = if column < 33 { (row + column) as u8 % 16 } else { 0 };
                assert_eq!(nibble(&packed, row * 5 + column / 8, column % 8), expected);
            }
        }
    }

    #[test]
    fn words_hold_the_zero_points_of_eight_rows() {
        let packed = zero_points(&linear());
        assert_eq!(packed.len(), 2 * 2 * 4);
        for row in 0..16 {
            let expected = if row < 9 {
                [row as u8, 15 - row as u8]
            } else {
                [0, 0]
            };
            for (group, zero) in expected.into_iter().enumerate() {
                assert_eq!(nibble(&packed, row / 8 * 2 + group, row % 8), zero);
            }
        }
    }

    #[test]
    fn bytes_count_from_the_least() {
        assert_eq!(
            bytes(&[-127, 0, 127, 1, 2, -1, 0, 0, 5, -5], 5),
            [1, 128, 255, 129, 130, 0, 0, 0, 127, 128, 128, 133, 123, 0, 0, 0]
        );
    }
}
