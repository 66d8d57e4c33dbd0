//! Linears in the scheme their folder stores.

use dualgrain_format::checkpoint::Dtype;
use dualgrain_format::{
    ActivationScheme, FloatLinear, FormatError, GroupSize, Int8Linear, LinearWeights, QuantizationConfig,
    QuantizedLinear, QuantizedParts, TensorScheme, int4,
};

use crate::{Weights, WeightsError};

impl Weights {
    /// Takes linear `name` `[n,k]` in the scheme `quantization` lists for it (float without one).
    ///
    /// # Errors
    /// As [`Self::float`]; contents that break the number format.
    pub fn linear(
        &self,
        name: &str,
        (n, k): (usize, usize),
        bias: bool,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<LinearWeights, WeightsError> {
        let wrong = |source: FormatError| WeightsError::Linear {
            dir: self.dir.clone(),
            name: name.to_owned(),
            source,
        };
        let bias = bias
            .then(|| self.f32(&format!("{name}.bias"), &[n]))
            .transpose()?;
        let Some(quantization) = quantization else {
            return self.float_linear(name, (n, k), bias)?.map_err(wrong);
        };
        let linear = match quantization.scheme(name) {
            TensorScheme::Float => self.float_linear(name, (n, k), bias)?,
            TensorScheme::W8 => {
                let ta = self.static_scale(name, quantization, false)?;
                self.int8_linear(name, (n, k), bias, ta)?
            }
            TensorScheme::W4 => {
                let group_size = quantization.group_size.group_size().map_err(wrong)?;
                let ta = self.static_scale(name, quantization, true)?;
                self.quantized_linear(name, (n, k), group_size, bias, ta)?
            }
        };
        linear.map_err(wrong)
    }

    fn float_linear(
        &self,
        name: &str,
        (n, k): (usize, usize),
        bias: Option<Vec<f32>>,
    ) -> Result<Result<LinearWeights, FormatError>, WeightsError> {
        let weight = self.float(&format!("{name}.weight"), &[n, k])?;
        Ok(FloatLinear::new(n, k, weight, bias).map(LinearWeights::Float))
    }

    fn int8_linear(
        &self,
        name: &str,
        (n, k): (usize, usize),
        bias: Option<Vec<f32>>,
        ta: Option<f32>,
    ) -> Result<Result<LinearWeights, FormatError>, WeightsError> {
        let w8 = self.bytes(&format!("{name}.w8"), Dtype::I8, "I8", &[n, k])?;
        let w8 = w8.iter().map(|byte| byte.cast_signed()).collect();
        let s1 = self.f32(&format!("{name}.s1"), &[n])?;
        Ok(Int8Linear::new((n, k), w8, s1, bias, ta).map(LinearWeights::W8))
    }

    fn quantized_linear(
        &self,
        name: &str,
        (n, k): (usize, usize),
        group_size: GroupSize,
        bias: Option<Vec<f32>>,
        ta: Option<f32>,
    ) -> Result<Result<LinearWeights, FormatError>, WeightsError> {
        let groups = group_size.num_groups(k);
        let bytes = |part: &str, columns: usize| {
            self.bytes(&format!("{name}.{part}"), Dtype::U8, "U8", &[n, columns])
                .map(<[u8]>::to_vec)
        };
        let parts = QuantizedParts {
            q: bytes("q", int4::row_bytes(k))?,
            zero: bytes("zero", int4::row_bytes(groups))?,
            s2: bytes("s2", groups)?,
            s1: self.f32(&format!("{name}.s1"), &[n])?,
            bias,
            ta,
        };
        Ok(QuantizedLinear::new((n, k), group_size, parts).map(LinearWeights::W4))
    }

    /// `name.ta` of a model with static activations; a head may do without.
    fn static_scale(
        &self,
        name: &str,
        quantization: &QuantizationConfig,
        required: bool,
    ) -> Result<Option<f32>, WeightsError> {
        let name = format!("{name}.ta");
        if quantization.activations == ActivationScheme::PerToken || (!required && !self.contains(&name)) {
            return Ok(None);
        }
        Ok(self.f32(&name, &[1])?.first().copied())
    }
}
