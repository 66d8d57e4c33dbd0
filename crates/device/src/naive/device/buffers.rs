//! Matrices, quantized activations and tables as plain vectors.

use dualgrain_format::FloatValues;

use super::NAME;
use crate::{Capacity, Done};

/// f32 `[rows, columns]`, row after row.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub(super) capacity: Capacity,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// INT8 codes `[rows, columns]`, row after row, and scales `[rows]`.
#[derive(Debug, Clone)]
pub struct Quantized {
    pub(super) capacity: Capacity,
    pub(super) columns: usize,
    pub(super) codes: Vec<i8>,
    pub(super) scales: Vec<f32>,
}

/// An embedding table `[entries, columns]`.
#[derive(Debug)]
pub struct Table {
    pub(super) values: FloatValues,
    pub(super) columns: usize,
}

impl Matrix {
    pub(super) fn new(capacity: usize, columns: usize) -> Self {
        Self {
            capacity: Capacity::new(capacity, columns),
            columns,
            values: Vec::with_capacity(capacity * columns),
        }
    }

    /// Rows it holds.
    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// Zeros `[rows, columns]`, for which there is room.
    pub(super) fn resize(&mut self, rows: usize, columns: usize) {
        self.columns = columns;
        self.values.clear();
        self.values.resize(rows * columns, 0.0);
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// Rows to read.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.columns)
    }

    /// Rows to write.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.columns)
    }

    /// The only row.
    pub(super) fn one_row(&self, what: &str, columns: usize) -> &[f32] {
        let shape = (self.rows(), self.columns);
        assert_eq!(
            shape,
            (1, columns),
            "{what} of shape {shape:?}, expected 1 x {columns}"
        );
        &self.values
    }
}

impl Quantized {
    pub(super) fn new(capacity: usize, columns: usize) -> Self {
        Self {
            capacity: Capacity::new(capacity, columns),
            columns,
            codes: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// Zeros `[rows, columns]`, for which there is room.
    pub(super) fn resize(&mut self, rows: usize, columns: usize) {
        self.columns = columns;
        self.codes.clear();
        self.codes.resize(rows * columns, 0);
        self.scales.clear();
        self.scales.resize(rows, 0.0);
    }
}

/// Whether an output has room for a shape.
pub(super) fn has_room(output: Capacity, operation: &'static str, shape: (usize, usize)) -> Done {
    output.check(operation, || NAME.to_owned(), shape)
}
