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

    /// `out = linear(norm(x))`, through `h` or `a8`; without a norm, of `x` itself.
    ///
    /// # Errors
    /// The device failed.
    pub fn apply_normed(
        &self,
        device: &D,
        out: &mut D::Matrix,
        x: (Option<&Norm<D>>, &D::Matrix),
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
        operand(self.activations, device, x, a8)
    }

    /// What the linear takes, which lies as floats in `h` or as codes in `a8`.
    pub(super) fn input<'h>(&self, h: &'h D::Matrix, a8: &'h D::Quantized) -> Operand<'h, D> {
        input(self.activations, h, a8)
    }

    /// What the linear takes of `norm(x)`, or of `x` without a norm, where [`Self::norm_input`] or [`Self::add_then_norm_input`] has put it.
    pub(super) fn normed_input<'h>(
        &self,
        norm: Option<&Norm<D>>,
        (x, h): (&'h D::Matrix, &'h D::Matrix),
        a8: &'h D::Quantized,
    ) -> Operand<'h, D> {
        self.input(if norm.is_some() { h } else { x }, a8)
    }

    /// Puts `norm(x)` where [`Self::normed_input`] finds it.
    pub(super) fn norm_input(
        &self,
        device: &D,
        (norm, x): (Option<&Norm<D>>, &D::Matrix),
        h: &mut D::Matrix,
        a8: &mut D::Quantized,
    ) -> Done {
        self.normed(device, (norm, x), h, a8).map(drop)
    }

    /// `x += before(a)` through `y`, then [`Self::norm_input`] of `x`.
    pub(super) fn add_then_norm_input(
        &self,
        device: &D,
        (x, y): (&mut D::Matrix, &mut D::Matrix),
        (a, before): (Operand<'_, D>, &D::Linear),
        norm: Option<&Norm<D>>,
        (h, a8): (&mut D::Matrix, &mut D::Quantized),
    ) -> Done {
        match (self.activations, norm.and_then(Norm::rms)) {
            (Some(scale), Some(rms)) => {
                device.gemm_add_rms_norm_quantize(a8, x, (y, h), a, before, rms, scale)
            }
            _ => {
                device.gemm_add(x, y, a, before)?;
                self.norm_input(device, (norm, x), h, a8)
            }
        }
    }

    /// What the linear takes of `norm(x)`: `h`, or `a8` when the weights are integers. Without a norm: `x`, or `a8`.
    pub(super) fn normed<'h>(
        &self,
        device: &D,
        (norm, x): (Option<&Norm<D>>, &'h D::Matrix),
        h: &'h mut D::Matrix,
        a8: &'h mut D::Quantized,
    ) -> Result<Operand<'h, D>, DeviceError> {
        match (self.activations, norm) {
            (_, None) => self.operand(device, x, a8),
            (None, Some(norm)) => {
                norm.apply(device, h, x)?;
                Ok(Operand::Float(h))
            }
            (Some(scale), Some(norm)) => {
                norm.apply_quantized(device, a8, h, x, scale)?;
                Ok(Operand::Int8(a8))
            }
        }
    }
}

/// What weights take of `x` that want such activations: itself, or its codes in `a8`.
pub(super) fn operand<'x, D: Device>(
    activations: Option<ActivationScale>,
    device: &D,
    x: &'x D::Matrix,
    a8: &'x mut D::Quantized,
) -> Result<Operand<'x, D>, DeviceError> {
    if let Some(scale) = activations {
        device.quantize(a8, x, scale)?;
    }
    Ok(input(activations, x, a8))
}

/// What weights take that want such activations, and that lies as floats in `h` or as codes in `a8`.
pub(super) fn input<'h, D: Device>(
    activations: Option<ActivationScale>,
    h: &'h D::Matrix,
    a8: &'h D::Quantized,
) -> Operand<'h, D> {
    match activations {
        None => Operand::Float(h),
        Some(_) => Operand::Int8(a8),
    }
}
