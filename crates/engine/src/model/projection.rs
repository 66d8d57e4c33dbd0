//! A linear on a device, with the way its input becomes what the weights take.

use dualgrain_device::{ActivationScale, Device, DeviceError, Done, Operand};
use dualgrain_format::LinearWeights;

use super::norm::Norm;
use crate::EngineError;

/// A packed linear with the way its input is quantized.
pub struct Projection<D: Device> {
    /// Packed weights `[n,k]`.
    pub linear: D::Linear,
    /// How the input becomes INT8; `None` for float weights.
    pub activations: Option<ActivationScale>,
}

impl<D: Device> Projection<D> {
    /// Packs a linear; integer weights take INT8 inputs with their static scale, or one per token.
    ///
    /// # Errors
    /// A shape the device cannot hold.
    pub fn new(device: &D, weights: LinearWeights) -> Result<Self, EngineError> {
        Self::from_slices(device, (weights.n(), weights.k()), std::iter::once(Ok(weights)))
    }

    /// As [`Self::new`], from slices of the rows of a linear `[n,k]` (see [`Device::pack_slices`]).
    ///
    /// # Errors
    /// A shape the device cannot hold; the first error of `slices`.
    pub fn from_slices(
        device: &D,
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, EngineError>>,
    ) -> Result<Self, EngineError> {
        let mut activations = None;
        let slices = slices.inspect(|slice| match slice {
            Ok(LinearWeights::Float(_)) | Err(_) => {}
            Ok(integer) => {
                let scale = integer
                    .ta()
                    .map_or(ActivationScale::PerToken, ActivationScale::Static);
                activations = Some(scale);
            }
        });
        Ok(Self {
            linear: device.pack_slices(shape, slices)?,
            activations,
        })
    }

    /// `out = linear(norm(x))`, through `h` or `a8`.
    ///
    /// # Errors
    /// The device failed.
    pub fn apply_normed(
        &self,
        device: &D,
        out: &mut D::Matrix,
        x: (&Norm<D>, &D::Matrix),
        h: &mut D::Matrix,
        a8: &mut D::Quantized,
    ) -> Done {
        device.gemm(out, self.normed(device, x, h, a8)?, &self.linear)
    }

    /// What the linear takes of `x`: itself, or `a8` when the weights are integers.
    pub(super) fn operand<'x>(
        &self,
        device: &D,
        x: &'x D::Matrix,
        a8: &'x mut D::Quantized,
    ) -> Result<Operand<'x, D>, DeviceError> {
        match self.activations {
            None => Ok(Operand::Float(x)),
            Some(scale) => {
                device.quantize(a8, x, scale)?;
                Ok(Operand::Int8(a8))
            }
        }
    }

    /// What the linear takes of `norm(x)`: `h`, or `a8` when the weights are integers.
    pub(super) fn normed<'h>(
        &self,
        device: &D,
        (norm, x): (&Norm<D>, &D::Matrix),
        h: &'h mut D::Matrix,
        a8: &'h mut D::Quantized,
    ) -> Result<Operand<'h, D>, DeviceError> {
        match self.activations {
            None => {
                norm.apply(device, h, x)?;
                Ok(Operand::Float(h))
            }
            Some(scale) => {
                norm.apply_quantized(device, a8, h, x, scale)?;
                Ok(Operand::Int8(a8))
            }
        }
    }
}
