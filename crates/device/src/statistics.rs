//! What a quantizer measures: sums over the tokens of a calibration, and what errors of weights do to outputs.

use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};

use crate::{Columns, Device, DeviceError, Done, Gram, Operand};

/// A device that can calibrate a model, beside running it.
///
/// # Errors
/// As those of [`Device`].
pub trait Statistics: Device {
    /// A Gram matrix in the making.
    type Gram: Send + Sync;
    /// A Gram matrix of the host where the device can read it.
    type GramView<'a>: Send + Sync;
    /// Squared errors of a layer's outputs, one for each row of weights.
    type OutputErrors: Send + Sync;
    /// The largest magnitude of every column.
    type Maxima: Send + Sync;
    /// The zero Gram matrix `[k,k]`.
    fn gram(&self, k: usize) -> Result<Self::Gram, DeviceError>;
    /// `gram += x^T x` (lower triangle), tokens in order.
    fn gram_accumulate(&self, gram: &mut Self::Gram, x: &Self::Matrix) -> Done;
    /// `sums += x^T y` `[K,N]` for `x` `[tokens,K]` and `y` `[tokens,N]` of finite numbers from the host: each sum over the tokens by fused
    /// multiply-adds from 0 in order, added once.
    fn cross_accumulate(&self, sums: &mut Self::Matrix, x: &Self::Matrix, y: &[f32]) -> Done {
        let (tokens, k, n) = (self.rows(x), self.columns(x), self.columns(sums));
        let mut rows = vec![0.0; tokens * k];
        self.download(x, 0..tokens, &mut rows)?;
        let (mut left, mut product) = (self.matrix(k, tokens)?, self.matrix(k, n)?);
        self.upload(&mut left, &columns_of(&rows, k))?;
        let linear = FloatLinear::new(n, tokens, FloatValues::F32(columns_of(y, n)), None);
        let linear = linear.unwrap_or_else(|error| panic!("y: {error}"));
        let linear = self.pack(LinearWeights::Float(linear))?;
        self.gemm_add(sums, &mut product, Operand::Float(&left), &linear)
    }
    /// Hands a Gram matrix to the host; nothing is copied where the device computes there.
    fn gram_to_host(&self, gram: Self::Gram) -> Result<Gram, DeviceError>;
    /// A Gram matrix of the host as [`Self::compute_output_errors`] reads it; nothing is copied where the device computes there.
    fn view_gram<'a>(&self, gram: &'a Gram) -> Result<Self::GramView<'a>, DeviceError>;
    /// Room for the output errors of `capacity` rows.
    fn output_errors(&self, capacity: usize) -> Result<Self::OutputErrors, DeviceError>;
    /// `out[r] = errors[r] * gram * errors[r]^T` for rows `[R,K]` of weight errors from the host, reading only the Gram matrix's
    /// lower triangle: the squared error of a layer's outputs over all calibration tokens.
    fn compute_output_errors(
        &self,
        out: &mut Self::OutputErrors,
        gram: &Self::GramView<'_>,
        errors: &[f32],
    ) -> Done;
    /// Copies the output errors of the last [`Self::compute_output_errors`] to the host: `out` is `[R]`.
    fn read_output_errors(&self, errors: &Self::OutputErrors, out: &mut [f64]) -> Done;
    /// Maxima of `columns` columns, all zero.
    fn maxima(&self, columns: usize) -> Result<Self::Maxima, DeviceError>;
    /// `maxima[j] = max(maxima[j], max over rows of |x[:, columns.start + j]|)`.
    fn abs_max(&self, x: &Self::Matrix, columns: Columns, maxima: &mut Self::Maxima) -> Done;
    /// The maxima so far.
    fn read_maxima(&self, maxima: &Self::Maxima) -> Result<Vec<f32>, DeviceError>;
}

/// Rows of `width` as columns.
fn columns_of(rows: &[f32], width: usize) -> Vec<f32> {
    let column = |column| rows.iter().skip(column).step_by(width).copied();
    (0..width).flat_map(column).collect()
}
