//! INT8 activations, on the host and in a card's memory.

use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;
use crate::fit::count;

/// Bytes a row of activations is padded to.
const ROW_BYTES: usize = 16;

/// INT8 activations on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenCodes {
    /// Codes `[M,K]`.
    pub codes: Vec<i8>,
    /// Sum of each token's codes `[M]`.
    pub sums: Vec<i32>,
    /// Scales `[M]`.
    pub scales: Vec<f32>,
}

/// INT8 activations in a card's memory, with their scales and the sums of their codes.
pub struct QuantizedTokens {
    /// Tokens there is room for.
    capacity: usize,
    m: usize,
    k: usize,
    row_bytes: usize,
    codes: Buffer,
    sums: Buffer,
    scales: Buffer,
}

impl QuantizedTokens {
    /// Uploads codes `[M,K]` and scales `[M]`.
    ///
    /// # Errors
    /// Lengths that do not fit, sizes the kernels cannot count, or no memory.
    pub fn upload(gpu: &Gpu, codes: &[i8], scales: &[f32], k: usize) -> Result<Self, CudaError> {
        let m = count("M", scales.len())?;
        if codes.len() != m * k {
            return Err(CudaError::Length {
                what: "codes of the activations",
                expected: m * k,
                got: codes.len(),
            });
        }
        let row_bytes = count("K", k)?.next_multiple_of(ROW_BYTES);
        let mut padded = vec![0i8; m * row_bytes];
        for (row, padded) in codes.chunks_exact(k).zip(padded.chunks_exact_mut(row_bytes)) {
            padded[..k].copy_from_slice(row);
        }
        let sum = |row: &[i8]| row.iter().map(|&code| i32::from(code)).sum::<i32>();
        let sums: Vec<i32> = codes.chunks_exact(k).map(sum).collect();
        Ok(Self {
            capacity: m,
            m,
            k,
            row_bytes,
            codes: gpu.upload(&padded)?,
            sums: gpu.upload(&sums)?,
            scales: gpu.upload(scales)?,
        })
    }

    /// Room for `m` tokens of `k` codes that a kernel is to write.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn empty(gpu: &Gpu, m: usize, k: usize) -> Result<Self, CudaError> {
        let row_bytes = count("K", k)?.next_multiple_of(ROW_BYTES);
        Ok(Self {
            capacity: m,
            m: count("M", m)?,
            k,
            row_bytes,
            codes: gpu.filled(m * row_bytes, 0)?,
            sums: gpu.filled(4 * m, 0)?,
            scales: gpu.filled(4 * m, 0)?,
        })
    }

    /// Says how many tokens a kernel is to write, at most as many as there is room for.
    ///
    /// # Errors
    /// More tokens.
    pub fn set_tokens(&mut self, m: usize) -> Result<(), CudaError> {
        if m > self.capacity {
            return Err(CudaError::Length {
                what: "rows of codes",
                expected: self.capacity * self.row_bytes,
                got: m * self.row_bytes,
            });
        }
        self.m = m;
        Ok(())
    }

    /// Copies them to the host.
    ///
    /// # Errors
    /// A call, or an earlier kernel, that failed.
    pub fn download(&self) -> Result<TokenCodes, CudaError> {
        let mut padded = vec![0i8; self.m * self.row_bytes];
        let (mut sums, mut scales) = (vec![0; self.m], vec![0.0; self.m]);
        self.codes.read(0, &mut padded)?;
        self.sums.read(0, &mut sums)?;
        self.scales.read(0, &mut scales)?;
        let rows = padded.chunks_exact(self.row_bytes);
        Ok(TokenCodes {
            codes: rows.flat_map(|row| row[..self.k].iter().copied()).collect(),
            sums,
            scales,
        })
    }

    /// Where codes, sums and scales lie.
    pub(crate) fn addresses(&self) -> (u64, u64, u64) {
        (self.codes.address(), self.sums.address(), self.scales.address())
    }

    /// Bytes between rows of codes.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The codes, rows padded to multiples of 16 bytes.
    pub fn codes(&self) -> &Buffer {
        &self.codes
    }

    /// Tokens and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.m, self.k)
    }
}
