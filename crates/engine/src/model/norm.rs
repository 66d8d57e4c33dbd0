//! A norm on a device.

use dualgrain_device::{ActivationScale, Columns, Device, DeviceError, Done};

use crate::{EngineError, NormKind, NormSpec, Weights};

/// A norm's parameters on the device.
pub struct Norm<D: Device> {
    spec: NormSpec,
    weight: D::Matrix,
    bias: Option<D::Matrix>,
}

impl<D: Device> Norm<D> {
    /// Loads a norm's tensors.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite tensor.
    pub fn load(device: &D, weights: &Weights, spec: &NormSpec) -> Result<Self, EngineError> {
        let weight = weights.f32(&format!("{}.weight", spec.name), &[spec.len])?;
        let bias = match spec.bias {
            true => Some(weights.f32(&format!("{}.bias", spec.name), &[spec.len])?),
            false => None,
        };
        Ok(Self::new(device, spec, &weight, bias.as_deref())?)
    }

    /// A norm from host values as they are stored (after smoothing was folded in). `bias` belongs to [`NormKind::Layer`] only; without
    /// one it is zero.
    ///
    /// # Errors
    /// The device refuses the buffers.
    pub fn new(
        device: &D,
        spec: &NormSpec,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, DeviceError> {
        let row = |values: &[f32], offset: f32| {
            let scaled: Vec<f32> = values.iter().map(|value| (value + offset) * spec.scale).collect();
            let mut row = device.matrix(1, spec.len)?;
            device.upload(&mut row, &scaled)?;
            Ok(row)
        };
        let bias = match (spec.kind, bias) {
            (NormKind::Rms, _) => None,
            (NormKind::Layer, Some(bias)) => Some(row(bias, 0.0)?),
            (NormKind::Layer, None) => Some(row(&vec![0.0; spec.len], 0.0)?),
        };
        Ok(Self {
            spec: spec.clone(),
            weight: row(weight, spec.offset)?,
            bias,
        })
    }

    /// Weight and eps of an RMS norm; `None` for a layer norm.
    pub(super) fn rms(&self) -> Option<(&D::Matrix, f32)> {
        match &self.bias {
            None => Some((&self.weight, self.spec.eps)),
            Some(_) => None,
        }
    }

    /// `out = norm(x)`.
    ///
    /// # Errors
    /// The device failed.
    pub fn apply(&self, device: &D, out: &mut D::Matrix, x: &D::Matrix) -> Done {
        match &self.bias {
            None => device.rms_norm(out, x, &self.weight, self.spec.eps),
            Some(bias) => device.layer_norm(out, x, &self.weight, bias, self.spec.eps),
        }
    }

    /// `out` = `norm(x)` as INT8, perhaps through `h`.
    pub(super) fn apply_quantized(
        &self,
        device: &D,
        out: &mut D::Quantized,
        h: &mut D::Matrix,
        x: &D::Matrix,
        scale: ActivationScale,
    ) -> Done {
        let (weight, eps) = (&self.weight, self.spec.eps);
        match &self.bias {
            None => device.rms_norm_quantize(out, h, x, weight, eps, scale),
            Some(bias) => device.layer_norm_quantize(out, h, x, (weight, bias), eps, scale),
        }
    }

    /// Normalizes in place what lies inside `columns`, as many elements at a time as the norm has: heads, or all of them.
    pub(super) fn apply_heads(&self, device: &D, x: &mut D::Matrix, columns: Columns) -> Done {
        device.rms_norm_heads(x, columns, &self.weight, self.spec.eps)
    }
}
