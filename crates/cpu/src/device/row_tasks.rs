//! Rows of a matrix shared out between the threads.

use dualgrain_device::{ActivationScale, Device, Done, check_blocks};
use dualgrain_threads::SharedSlice;

use super::cpu_device::CpuDevice;
use crate::rows::hadamard::hadamard_quantize;
use crate::rows::quantize::Place;
use crate::tensor::matrix::Matrix;
use crate::tensor::quantized::{Quantized, QuantizedParts};

/// Elements of a row operation that are worth a chunk of their own (a few microseconds).
pub(super) const CHUNK_ELEMENTS: usize = 16 * 1024;

impl CpuDevice {
    /// Runs `f(first_row, rows)` for runs of rows of `columns` elements.
    pub(super) fn for_rows(&self, values: &mut [f32], columns: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        if values.is_empty() {
            return;
        }
        let rows = CHUNK_ELEMENTS.div_ceil(columns.max(1));
        self.pool()
            .for_each_chunk(values, rows * columns, |chunk_idx, chunk| {
                for (row, values) in chunk.chunks_exact_mut(columns).enumerate() {
                    f(chunk_idx * rows + row, values);
                }
            });
    }

    /// Gives `out` the shape of what `operation` writes.
    ///
    /// # Errors
    /// It has no room for that.
    pub(super) fn reshape(
        &self,
        out: &mut Matrix,
        operation: &'static str,
        (rows, columns): (usize, usize),
    ) -> Done {
        out.capacity.check(operation, || self.name(), (rows, columns))?;
        out.resize(rows, columns);
        Ok(())
    }

    /// Gives `out` the shape of what `operation` writes and runs `f(row_idx, row)`.
    pub(super) fn fill(
        &self,
        out: &mut Matrix,
        operation: &'static str,
        shape: (usize, usize),
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Done {
        self.reshape(out, operation, shape)?;
        self.for_rows(out.values_mut(), shape.1, f);
        Ok(())
    }

    /// Gives `out` the shape of what `operation` writes and runs `f(row_idx, place)`, which gives the row's scale.
    pub(super) fn fill_quantized(
        &self,
        out: &mut Quantized,
        operation: &'static str,
        (rows, columns): (usize, usize),
        f: impl Fn(usize, Place<'_>) -> f32 + Sync,
    ) -> Done {
        out.capacity.check(operation, || self.name(), (rows, columns))?;
        out.columns = columns;
        let (layout, blocks) = (out.resize(rows), out.blocks());
        let QuantizedParts {
            quads,
            scales,
            block_sums,
        } = out.parts_mut();
        let (quads, scales, sums) = (
            SharedSlice::new(quads),
            SharedSlice::new(scales),
            SharedSlice::new(block_sums),
        );
        // Whole tiles, since their rows lie side by side.
        let rows_per_chunk = CHUNK_ELEMENTS
            .div_ceil(columns.max(1))
            .next_multiple_of(layout.tile_rows);
        self.pool().run(rows.div_ceil(rows_per_chunk), |chunk| {
            let rows = chunk * rows_per_chunk..((chunk + 1) * rows_per_chunk).min(rows);
            let first_row = rows.start;
            let tiles =
                rows.start * layout.row_quads..rows.end.next_multiple_of(layout.tile_rows) * layout.row_quads;
            // SAFETY: each tile belongs to one chunk.
            let quads = unsafe { quads.range(tiles) };
            for row in rows {
                // SAFETY: each row belongs to one chunk.
                let (scale, block_sums) = unsafe {
                    (
                        scales.range(row..row + 1),
                        sums.range(row * blocks..(row + 1) * blocks),
                    )
                };
                let quads = &mut quads[layout.row(row - first_row)..];
                scale[0] = f(
                    row,
                    Place {
                        quads,
                        layout,
                        block_sums,
                    },
                );
            }
        });
        Ok(())
    }
}

impl CpuDevice {
    /// Transforms runs of `block` columns of `x` and quantizes each row while it is at hand.
    pub(super) fn transform_and_quantize(
        &self,
        out: &mut Quantized,
        x: &mut Matrix,
        block: usize,
        scale: ActivationScale,
    ) -> Done {
        let (rows, columns) = (x.rows, x.columns);
        check_blocks(columns, block);
        let values = SharedSlice::new(x.values_mut());
        self.fill_quantized(out, "hadamard_quantize", (rows, columns), |row, place| {
            // SAFETY: each row is handed out once.
            let row = unsafe { values.range(row * columns..(row + 1) * columns) };
            hadamard_quantize(self.isa(), row, block, scale, place)
        })
    }
}

/// The only row of `x`, which must have as many columns.
pub(super) fn one_row<'a>(what: &str, x: &'a Matrix, columns: usize) -> &'a [f32] {
    assert_eq!(
        (x.rows, x.columns),
        (1, columns),
        "{what} of shape {}x{}, expected 1x{columns}",
        x.rows,
        x.columns
    );
    x.row(0)
}
