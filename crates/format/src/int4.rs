//! The canonical nibble order on disk: each row is packed alone, the low nibble of a byte is the even index.

/// Bytes of a row of `len` nibbles.
pub const fn row_bytes(len: usize) -> usize {
    len.div_ceil(2)
}

/// Packs one row of values 0..=15; an odd row ends with `padding` in its last high nibble.
pub fn pack_row(values: &[u8], padding: u8, packed: &mut Vec<u8>) {
    packed.extend(
        values
            .chunks(2)
            .map(|pair| pair[0] | pair.get(1).unwrap_or(&padding) << 4),
    );
}

/// Value `index` of a packed row.
#[inline]
pub fn at(packed_row: &[u8], index: usize) -> u8 {
    (packed_row[index / 2] >> (4 * (index & 1))) & 15
}

/// Unpacks the first `values.len()` nibbles of a row.
pub fn unpack_row(packed_row: &[u8], values: &mut [u8]) {
    for (pair, byte) in values.chunks_mut(2).zip(packed_row) {
        pair[0] = byte & 15;
        if let Some(high) = pair.get_mut(1) {
            *high = byte >> 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_rows_survive_a_round_trip_and_keep_their_padding() {
        let values = [1, 15, 7];
        let mut packed = Vec::new();
        pack_row(&values, 9, &mut packed);
        assert_eq!(packed, [0xf1, 0x97]);
        let mut back = [0; 3];
        unpack_row(&packed, &mut back);
        assert_eq!(back, values);
        assert_eq!(at(&packed, 3), 9);
    }
}
