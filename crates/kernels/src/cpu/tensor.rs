//! Buffers of the CPU: row-major matrices, quantized activations, embedding tables.

use dualgrain_format::FloatValues;

/// Elements whose codes are summed together: the smallest group size, so that any group's sum is a sum of blocks.
pub(crate) const SUM_BLOCK: usize = 32;

/// Rows of quantized activations that lie side by side: the largest integer tile.
pub(crate) const TILE_ROWS: usize = 12;

/// f32 `[rows, columns]`, row-major.
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

/// INT8 codes `[rows, columns]`, their scales `[rows]`, and the sums of every 32 codes that integer products take the
/// zero points out with.
///
/// Codes lie as the integer tiles read them: `[rows / 12][K / 4][12][4]`, the 4 codes a dot product takes from each of 12
/// rows side by side (fewer when there are fewer rows), so that a tile's addresses are one pointer and constants.
/// K is padded with zeros to a multiple of 32.
#[derive(Debug, Clone)]
pub struct Quantized {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    quads: Vec<[i8; 4]>,
    pub(crate) scales: Vec<f32>,
    block_sums: Vec<i32>,
}

/// The parts of [`Quantized`] to be written.
pub(crate) struct QuantizedParts<'a> {
    /// Codes, tile by tile.
    pub(crate) quads: &'a mut [[i8; 4]],
    /// `[rows]`
    pub(crate) scales: &'a mut [f32],
    /// `[rows, blocks]`
    pub(crate) block_sums: &'a mut [i32],
}

impl Quantized {
    pub(crate) fn new(capacity: usize, columns: usize) -> Self {
        let mut new = Self {
            rows: 0,
            columns,
            quads: Vec::new(),
            scales: Vec::new(),
            block_sums: Vec::new(),
        };
        new.quads
            .reserve(capacity.next_multiple_of(TILE_ROWS) * new.row_quads());
        new.scales.reserve(capacity);
        new.block_sums.reserve(capacity * new.blocks());
        new
    }

    /// Rows whose codes lie side by side.
    pub(crate) fn tile_rows(&self) -> usize {
        self.rows.clamp(1, TILE_ROWS)
    }

    /// Groups of 4 codes in a row, padding included.
    pub(crate) fn row_quads(&self) -> usize {
        self.blocks() * SUM_BLOCK / 4
    }

    /// Blocks of 32 codes in a row.
    pub(crate) fn blocks(&self) -> usize {
        self.columns.div_ceil(SUM_BLOCK)
    }

    pub(crate) fn resize(&mut self, rows: usize) {
        self.rows = rows;
        self.quads
            .resize(rows.next_multiple_of(self.tile_rows()) * self.row_quads(), [0; 4]);
        self.scales.resize(rows, 0.0);
        self.block_sums.resize(rows * self.blocks(), 0);
    }

    /// Codes and scale of a row, copied.
    pub fn row(&self, row: usize) -> (Vec<i8>, f32) {
        let quads = self
            .tile(row)
            .iter()
            .step_by(self.tile_rows())
            .take(self.row_quads());
        let mut codes: Vec<i8> = quads.flatten().copied().collect();
        codes.truncate(self.columns);
        (codes, self.scales[row])
    }

    /// Codes from `row`'s first on: its next four, and the other rows of its tile beside them, `tile_rows` on.
    pub(crate) fn tile(&self, row: usize) -> &[[i8; 4]] {
        let (tile, lane) = (row / self.tile_rows(), row % self.tile_rows());
        &self.quads[tile * self.tile_rows() * self.row_quads() + lane..]
    }

    /// Sums of every 32 codes of a row.
    pub(crate) fn block_sums(&self, row: usize) -> &[i32] {
        &self.block_sums[row * self.blocks()..(row + 1) * self.blocks()]
    }

    pub(crate) fn upload(&mut self, codes: &[i8], scales: &[f32]) {
        self.resize(scales.len());
        self.scales.copy_from_slice(scales);
        let (tile_rows, row_quads, blocks) = (self.tile_rows(), self.row_quads(), self.blocks());
        for (row, source) in codes.chunks_exact(self.columns).enumerate() {
            let start = row / tile_rows * tile_rows * row_quads + row % tile_rows;
            for (quad_idx, quad) in self.quads[start..]
                .iter_mut()
                .step_by(tile_rows)
                .take(row_quads)
                .enumerate()
            {
                *quad = std::array::from_fn(|b| source.get(4 * quad_idx + b).copied().unwrap_or(0));
            }
            for (sum, block) in self.block_sums[row * blocks..]
                .iter_mut()
                .zip(source.chunks(SUM_BLOCK))
            {
                *sum = block.iter().map(|&code| i32::from(code)).sum();
            }
        }
    }

    pub(crate) fn parts_mut(&mut self) -> QuantizedParts<'_> {
        QuantizedParts {
            quads: &mut self.quads,
            scales: &mut self.scales,
            block_sums: &mut self.block_sums,
        }
    }
}

/// An embedding table `[entries, columns]` in the precision it came in.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) values: FloatValues,
    pub(crate) columns: usize,
}
