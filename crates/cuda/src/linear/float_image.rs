//! How float weights lie in a card's memory, as cu/linear/float_product.cuh reads them.

use bytemuck::Pod;
use dualgrain_format::FloatValues;
use half::bf16;

/// Rows of a strip.
pub(crate) const STRIP_ROWS: usize = 32;
/// Bytes of a row that lie together.
pub(crate) const UNIT_BYTES: usize = 16;
/// Columns are padded to a multiple of this.
const PADDED_K: usize = 32;

/// What a layer's weights are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatKind {
    /// 32-bit floats.
    F32,
    /// Brain floats.
    Bf16,
}

impl FloatKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// That of some values.
    pub fn of(values: &FloatValues) -> Self {
        match values {
            FloatValues::F32(_) => Self::F32,
            FloatValues::Bf16(_) => Self::Bf16,
        }
    }

    /// Bytes of a value.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Units of a row.
    pub(crate) fn units(self, k: usize) -> usize {
        k.next_multiple_of(PADDED_K) * self.size_bytes() / UNIT_BYTES
    }

    /// Bytes of `rows` rows of `k` values; all slices of a layer but its last are whole strips.
    pub(crate) fn image_bytes(self, rows: usize, k: usize) -> usize {
        rows.next_multiple_of(STRIP_ROWS) * self.units(k) * UNIT_BYTES
    }
}

/// The image of rows of `k` 32-bit floats.
pub(crate) fn pack_f32(values: &[f32], k: usize) -> Vec<f32> {
    pack(values, k, -0.0)
}

/// The image of rows of `k` brain floats.
pub(crate) fn pack_bf16(values: &[bf16], k: usize) -> Vec<bf16> {
    pack(values, k, bf16::NEG_ZERO)
}

/// Behind the last column stands -0.0: a product of it with 0 changes no sum, not even the sign of a zero.
fn pack<T: Pod>(values: &[T], k: usize, negative_zero: T) -> Vec<T> {
    let (rows, columns) = (values.len() / k, k.next_multiple_of(PADDED_K));
    let width = UNIT_BYTES / size_of::<T>();
    let mut image = vec![negative_zero; rows.next_multiple_of(STRIP_ROWS) * columns];
    for (values, strip) in values
        .chunks(STRIP_ROWS * k)
        .zip(image.chunks_exact_mut(STRIP_ROWS * columns))
    {
        for (index, unit) in strip.chunks_exact_mut(width).enumerate() {
            let (row, column) = (index % STRIP_ROWS, index / STRIP_ROWS * width);
            let width = k.saturating_sub(column).min(width);
            let start = row * k + column;
            if let Some(values) = values.get(start..start + width) {
                unit[..width].copy_from_slice(values);
            }
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_rows_unit_and_negative_zeros_behind_it() {
        let (n, k) = (37, 19);
        let value = |row: usize, column: usize| (1 + row * k + column) as f32;
        let values: Vec<f32> = (0..n * k).map(|i| value(i / k, i % k)).collect();
        let image = pack_f32(&values, k);
        assert_eq!(4 * image.len(), FloatKind::F32.image_bytes(n, k));
        for row in 0..64 {
            for column in 0..32 {
                let unit = (row / 32 * 8 + column / 4) * 32 + row % 32;
                let got = image[unit * 4 + column % 4];
                let expected = match row < n && column < k {
                    true => value(row, column),
                    false => -0.0,
                };
                assert_eq!(got.to_bits(), expected.to_bits(), "{row} {column}");
            }
        }
        let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
        let image = pack_bf16(&halves, k);
        assert_eq!(2 * image.len(), FloatKind::Bf16.image_bytes(n, k));
        assert_eq!(image[(4 + 33 % 32 + 32 * 3) * 8 + 1], image[(3 * 32 + 5) * 8 + 1]);
        assert_eq!(image[(2 * 32 + 5) * 8 + 1], bf16::from_f32(value(5, 17)));
    }
}
