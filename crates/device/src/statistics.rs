//! What a quantizer measures: sums over the tokens of a calibration, and what errors of weights do to outputs.

use crate::{Columns, Device, DeviceError, Done, Gram};

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
