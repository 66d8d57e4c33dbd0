//! The canonical nibble order on disk: each row is packed alone, the low nibble of a byte is the even index.

use std::ops::Range;

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

/// The least and the largest of the values `range`, which is not empty and begins at an even index.
pub fn extremes(packed_row: &[u8], range: Range<usize>) -> (u8, u8) {
    let first = at(packed_row, range.start);
    let whole = &packed_row[range.start / 2..range.end / 2];
    let (mut least, mut most) = whole.iter().fold((first, first), |(least, most), byte| {
        let (low, high) = (byte & 15, byte >> 4);
        (least.min(low).min(high), most.max(low).max(high))
    });
    if !range.end.is_multiple_of(2) {
        let last = at(packed_row, range.end - 1);
        (least, most) = (least.min(last), most.max(last));
    }
    (least, most)
}

/// Unpacks the first `values.len()` nibbles of a row.
pub fn unpack_row(packed_row: &[u8], values: &mut [u8]) {
    let (pairs, rest) = values.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(packed_row) {
        *pair = [byte & 15, byte >> 4];
    }
    if let [last] = rest {
        *last = packed_row[pairs.len()] & 15;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_those_of_the_range_alone() {
        let values = [0, 15, 3, 9, 4, 8, 5, 7, 1];
        let mut packed = Vec::new();
        pack_row(&values, 15, &mut packed);
        for (start, end) in [(0, 9), (2, 8), (2, 7), (4, 5), (4, 9), (6, 8), (8, 9)] {
            let range = &values[start..end];
            let expected = (*range.iter().min().unwrap(), *range.iter().max().unwrap());
            assert_eq!(extremes(&packed, start..end), expected, "{start}..{end}");
        }
    }

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
