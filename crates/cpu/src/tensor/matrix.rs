//! Row-major matrices of floats.

use dualgrain_device::Capacity;

use crate::memory::huge_pages::in_huge_pages;

/// f32 `[rows, columns]`, row-major.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub(crate) capacity: Capacity,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    pub(crate) fn new(capacity: usize, columns: usize) -> Self {
        Self {
            capacity: Capacity::new(capacity, columns),
            rows: 0,
            columns,
            values: in_huge_pages(capacity * columns),
        }
    }

    /// Takes another shape, for which there is room.
    pub(crate) fn resize(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        self.values.resize(rows * columns, 0.0);
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
