//! How a GGUF file stores a tensor, and its rows as floats in a folder's order.

use std::ops::Range;

use dualgrain_format::gguf::GgufKind;

/// How a GGUF file stores a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub kind: GgufKind,
    /// Elements of a row.
    pub row: usize,
    /// Bytes of a row, which is whole blocks.
    pub row_bytes: usize,
    /// Rows of a head, where the file has them in pairs.
    pub head: Option<usize>,
}

impl Blocks {
    /// The floats of some rows, in a folder's order.
    pub fn read_rows(self, bytes: &[u8], rows: Range<usize>, out: &mut [f32]) {
        for (row, out) in rows.zip(out.chunks_exact_mut(self.row.max(1))) {
            let first = self.stored_row(row) * self.row_bytes;
            self.kind.read(&bytes[first..first + self.row_bytes], out);
        }
    }

    /// Where a row of a folder lies: the two halves of a head are interleaved in the file.
    fn stored_row(self, row: usize) -> usize {
        let Some(head) = self.head else {
            return row;
        };
        let (half, at) = (head / 2, row % head);
        row - at + at % half * 2 + at / half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_file_become_halves_of_a_head() {
        let blocks = Blocks {
            kind: GgufKind::F32,
            row: 1,
            row_bytes: 4,
            head: Some(6),
        };
        let order: Vec<_> = (0..12).map(|row| blocks.stored_row(row)).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
