//! Matrices, tables and indices in a card's memory.

use dualgrain_device::{Capacity, DeviceError, Done};
use dualgrain_format::FloatValues;

use super::CudaDevice;
use crate::driver::Buffer;
use crate::fit::RowPart;
use crate::gemm::QuantizedTokens;
use crate::rows::TableType;

/// f32 `[rows, columns]`.
pub struct CudaMatrix {
    pub(super) buffer: Buffer,
    capacity: Capacity,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// INT8 codes `[rows, columns]` with scales and sums.
pub struct CudaQuantized {
    pub(super) tokens: QuantizedTokens,
    capacity: Capacity,
}

/// An embedding table.
pub struct CudaTable {
    pub(super) buffer: Buffer,
    pub(super) columns: usize,
    pub(super) element: TableType,
}

/// Token ids, positions or row numbers.
pub struct CudaIndices {
    pub(super) buffer: Buffer,
    pub(super) capacity: usize,
    pub(super) len: usize,
}

impl CudaMatrix {
    /// Rows and columns.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The columns `columns` of its rows.
    pub(super) fn part(&self, columns: std::ops::Range<usize>) -> RowPart {
        RowPart {
            first: columns.start,
            len: columns.len(),
            row: self.columns,
        }
    }
}

impl CudaDevice {
    pub(super) fn new_matrix(&self, capacity: usize, columns: usize) -> Result<CudaMatrix, DeviceError> {
        let size_bytes = capacity.saturating_mul(columns).saturating_mul(4);
        Ok(CudaMatrix {
            buffer: self.buffer("matrix", size_bytes, || self.gpu.filled(size_bytes, 0))?,
            capacity: Capacity::new(capacity, columns),
            rows: 0,
            columns,
        })
    }

    pub(super) fn new_quantized(
        &self,
        capacity: usize,
        columns: usize,
    ) -> Result<CudaQuantized, DeviceError> {
        let size_bytes = capacity.saturating_mul(columns);
        let empty = || QuantizedTokens::empty(&self.gpu, capacity, columns);
        Ok(CudaQuantized {
            tokens: self.buffer("quantized activations", size_bytes, empty)?,
            capacity: Capacity::new(capacity, columns),
        })
    }

    pub(super) fn new_indices(&self, capacity: usize) -> Result<CudaIndices, DeviceError> {
        Ok(CudaIndices {
            buffer: self.buffer("indices", 4 * capacity, || self.gpu.filled(4 * capacity, 0))?,
            capacity,
            len: 0,
        })
    }

    pub(super) fn new_table(&self, values: &FloatValues, columns: usize) -> Result<CudaTable, DeviceError> {
        let got = values.len();
        if columns == 0 || !got.is_multiple_of(columns) {
            return Err(DeviceError::Length {
                what: "embedding table",
                device: self.name.clone(),
                expected: got.checked_next_multiple_of(columns).unwrap_or(0),
                got,
            });
        }
        let (element, size_bytes) = match values {
            FloatValues::F32(_) => (TableType::F32, 4 * got),
            FloatValues::Bf16(_) => (TableType::Bf16, 2 * got),
        };
        let upload = || match values {
            FloatValues::F32(values) => self.gpu.upload(values),
            FloatValues::Bf16(values) => self.gpu.upload(values),
        };
        Ok(CudaTable {
            buffer: self.buffer("embedding table", size_bytes, upload)?,
            columns,
            element,
        })
    }

    /// Makes an output hold `rows` rows of `columns` elements, or refuses where it has no room for them.
    pub(super) fn resize(
        &self,
        x: &mut CudaMatrix,
        operation: &'static str,
        (rows, columns): (usize, usize),
    ) -> Done {
        x.capacity
            .check(operation, || self.name.clone(), (rows, columns))?;
        (x.rows, x.columns) = (rows, columns);
        Ok(())
    }

    /// As [`Self::resize`] for codes, which have rows of one length.
    pub(super) fn resize_quantized(
        &self,
        x: &mut CudaQuantized,
        operation: &'static str,
        (rows, columns): (usize, usize),
    ) -> Done {
        x.capacity
            .check(operation, || self.name.clone(), (rows, columns))?;
        self.operation(operation, &[rows, columns], || x.tokens.set_tokens(rows))
    }
}
