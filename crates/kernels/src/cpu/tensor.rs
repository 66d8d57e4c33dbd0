//! Buffers of the CPU: row-major matrices, quantized activations, embedding tables.

use dualgrain_format::FloatValues;

/// Elements whose codes are summed together: the smallest group size, so that any group's sum is a sum of blocks.
pub(crate) const SUM_BLOCK: usize = 32;

/// f32 [rows, columns], row-major.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    pub(crate) fn new(capacity: usize, columns: usize) -> Self {
        Self {
            rows: 0,
            columns,
            values: Vec::with_capacity(capacity * columns),
        }
    }

    pub(crate) fn resize(&mut self, rows: usize) {
        self.rows = rows;
        self.values.resize(rows * self.columns, 0.0);
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// INT8 codes [rows, columns], their scales [rows], and the sums of every 32 codes that integer products take the
/// zero points out with.
#[derive(Debug, Clone)]
pub struct Quantized {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    codes: Vec<i8>,
    pub(crate) scales: Vec<f32>,
    block_sums: Vec<i32>,
}

impl Quantized {
    pub(crate) fn new(capacity: usize, columns: usize) -> Self {
        let mut new = Self {
            rows: 0,
            columns,
            codes: Vec::new(),
            scales: Vec::new(),
            block_sums: Vec::new(),
        };
        new.codes.reserve(capacity * new.stride());
        new.scales.reserve(capacity);
        new.block_sums.reserve(capacity * new.blocks());
        new
    }

    /// Bytes from row to row: an odd number of cache lines, so that the rows of a tile do not meet in the same cache
    /// sets. Codes beyond `columns` are 0.
    pub(crate) fn stride(&self) -> usize {
        (self.columns.div_ceil(64) | 1) * 64
    }

    /// Blocks of 32 codes in a row.
    pub(crate) fn blocks(&self) -> usize {
        self.columns.div_ceil(SUM_BLOCK)
    }

    pub(crate) fn resize(&mut self, rows: usize) {
        self.rows = rows;
        self.codes.resize(rows * self.stride(), 0);
        self.scales.resize(rows, 0.0);
        self.block_sums.resize(rows * self.blocks(), 0);
    }

    /// Codes and scale of a row.
    pub fn row(&self, row: usize) -> (&[i8], f32) {
        (&self.codes(row)[..self.columns], self.scales[row])
    }

    /// Codes of a row, padded with zeros to the stride.
    pub(crate) fn codes(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride()..(row + 1) * self.stride()]
    }

    /// Sums of every 32 codes of a row.
    pub(crate) fn block_sums(&self, row: usize) -> &[i32] {
        &self.block_sums[row * self.blocks()..(row + 1) * self.blocks()]
    }

    pub(crate) fn upload(&mut self, codes: &[i8], scales: &[f32]) {
        self.resize(scales.len());
        self.scales.copy_from_slice(scales);
        let (stride, blocks) = (self.stride(), self.blocks());
        for (row, source) in codes.chunks_exact(self.columns).enumerate() {
            let (codes, padding) = self.codes[row * stride..][..stride].split_at_mut(self.columns);
            codes.copy_from_slice(source);
            padding.fill(0);
            for (sum, block) in self.block_sums[row * blocks..]
                .iter_mut()
                .zip(source.chunks(SUM_BLOCK))
            {
                *sum = block.iter().map(|&code| i32::from(code)).sum();
            }
        }
    }

    /// Codes [rows, stride], scales [rows] and block sums [rows, blocks] to be written.
    pub(crate) fn parts_mut(&mut self) -> (&mut [i8], &mut [f32], &mut [i32]) {
        (&mut self.codes, &mut self.scales, &mut self.block_sums)
    }
}

/// An embedding table [entries, columns] in the precision it came in.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) values: FloatValues,
    pub(crate) columns: usize,
}
