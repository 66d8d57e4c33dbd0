//! Counting the slices of rows that a layer comes in, and keeping what is small of them until the layer is whole.

use dualgrain_device::SLICE_ROWS;

use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;
use crate::fit::{count, exactly};

/// Rows that are packed at once: a slice needs so many rows of its image on the host beside itself.
pub(crate) const ROWS_AT_ONCE: usize = 1_024;

/// A layer `[n, k]` in the making.
pub(crate) struct RowSlices {
    n: usize,
    k: usize,
    rows: usize,
    bias: Option<Vec<f32>>,
}

impl RowSlices {
    /// No rows of a layer `[n, k]` yet.
    ///
    /// # Errors
    /// Sizes the kernels cannot count.
    pub(crate) fn new((n, k): (usize, usize)) -> Result<Self, CudaError> {
        count("N", n)?;
        count("K", k)?;
        Ok(Self {
            n,
            k,
            rows: 0,
            bias: None,
        })
    }

    /// Takes the next slice's shape and bias; tells its first row. A missing bias among present ones becomes zeros.
    ///
    /// # Errors
    /// A slice of another K, one that reaches beyond the last row, or one behind a slice of no multiple of 64 rows.
    pub(crate) fn take(&mut self, (n, k): (usize, usize), bias: Option<&[f32]>) -> Result<usize, CudaError> {
        let first = self.rows;
        exactly("columns of a slice", self.k, k)?;
        exactly("rows before a slice", first.next_multiple_of(SLICE_ROWS), first)?;
        if n > self.n - first {
            return exactly("rows of a layer", self.n, first + n).map(|()| first);
        }
        self.rows += n;
        match (&mut self.bias, bias) {
            (None, None) => {}
            (all, bias) => {
                let all = all.get_or_insert_with(|| vec![0.0; first]);
                all.extend_from_slice(bias.unwrap_or(&[]));
                all.resize(first + n, 0.0);
            }
        }
        Ok(first)
    }

    /// The layer's shape.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// The bias on the card, when the layer is whole.
    ///
    /// # Errors
    /// Rows that are missing, or no memory.
    pub(crate) fn finish(self, gpu: &Gpu) -> Result<Option<Buffer>, CudaError> {
        exactly("rows of a layer", self.n, self.rows)?;
        self.bias.map(|bias| gpu.upload(&bias)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_follow_one_another_and_biases_join() {
        let mut slices = RowSlices::new((130, 3)).unwrap();
        assert_eq!(slices.take((64, 3), None), Ok(0));
        assert_eq!(slices.take((64, 3), Some(&[2.0; 64])), Ok(64));
        assert!(slices.take((3, 3), None).is_err());
        assert!(slices.take((2, 4), None).is_err());
        assert_eq!(slices.take((2, 3), None), Ok(128));
        let bias = slices.bias.unwrap();
        assert_eq!((bias.len(), bias[63], bias[64], bias[129]), (130, 0.0, 2.0, 0.0));
    }

    #[test]
    fn a_slice_behind_a_broken_one_is_refused() {
        let mut slices = RowSlices::new((100, 3)).unwrap();
        assert_eq!(slices.take((10, 3), None), Ok(0));
        assert!(slices.take((10, 3), None).is_err());
    }
}
