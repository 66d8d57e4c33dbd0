//! Linears in the scheme their folder stores, whole or some rows of them.

use std::ops::Range;

use dualgrain_format::checkpoint::Dtype;
use dualgrain_format::{
    ActivationScheme, FloatLinear, FormatError, GroupSize, Int8Linear, LinearScheme, LinearWeights,
    QuantizationConfig, QuantizedLinear, QuantizedParts, int4,
};

use crate::{Weights, WeightsError};

/// Rows of a linear `[n,k]` in the file.
struct Rows<'a> {
    name: &'a str,
    n: usize,
    k: usize,
    rows: Range<usize>,
    bias: Option<Vec<f32>>,
    ta: Option<f32>,
}

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
        self.linear_rows(name, ((n, k), 0..n), bias, quantization)
    }

    /// As [`Self::linear`], only some rows: a linear can pass through memory in slices.
    ///
    /// # Errors
    /// As [`Self::linear`].
    ///
    /// # Panics
    /// When the rows do not lie in `0..n`.
    pub fn linear_rows(
        &self,
        name: &str,
        ((n, k), rows): ((usize, usize), Range<usize>),
        bias: bool,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<LinearWeights, WeightsError> {
        let first = rows.start;
        let wrong = |source: FormatError| WeightsError::Linear {
            dir: self.dir.clone(),
            name: name.to_owned(),
            source: source.with_rows_from(first),
        };
        let scheme = quantization.map_or(LinearScheme::Float, |q| q.scheme(name));
        let ta = match (quantization, scheme) {
            (None, _) | (_, LinearScheme::Float) => None,
            (Some(quantization), scheme) => {
                self.static_scale(name, quantization, scheme.group_size().is_some())?
            }
        };
        let bias = bias.then(|| self.f32_rows(&format!("{name}.bias"), n, rows.clone()));
        let rows = Rows {
            name,
            n,
            k,
            rows,
            bias: bias.transpose()?,
            ta,
        };
        let linear = match scheme {
            LinearScheme::Float => self.float_linear(rows)?,
            LinearScheme::W8 => self.int8_linear(rows)?,
            LinearScheme::W4 { group_size } => self.quantized_linear(rows, group_size)?,
        };
        let linear = linear.map_err(wrong)?;
        // Linears of blocks have a number in their names, the head has none.
        let is_head = !name.bytes().any(|byte| byte.is_ascii_digit());
        let in_floats = if is_head {
            self.in_floats.head
        } else {
            self.in_floats.blocks
        };
        match in_floats {
            true => Ok(LinearWeights::Float(linear.into_float().map_err(wrong)?)),
            false => Ok(linear),
        }
    }

    /// Whether the tensors of a linear are there, by their headers.
    ///
    /// # Errors
    /// As [`Self::linear`], but for their values.
    pub fn expect_linear(
        &self,
        name: &str,
        (n, k): (usize, usize),
        bias: bool,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<(), WeightsError> {
        let scheme = quantization.map_or(LinearScheme::Float, |q| q.scheme(name));
        let part = |part: &str| format!("{name}.{part}");
        match scheme {
            LinearScheme::Float => self.expect_float(&part("weight"), &[n, k])?,
            LinearScheme::W8 => drop(self.bytes(&part("w8"), Dtype::I8, "I8", &[n, k])?),
            LinearScheme::W4 { group_size } => {
                let groups = group_size.num_groups(k);
                let columns = [
                    ("q", int4::row_bytes(k)),
                    ("zero", int4::row_bytes(groups)),
                    ("s2", groups),
                ];
                for (name, columns) in columns {
                    self.bytes(&part(name), Dtype::U8, "U8", &[n, columns])?;
                }
            }
        }
        if scheme != LinearScheme::Float {
            self.expect_float(&part("s1"), &[n])?;
        }
        if bias {
            self.expect_float(&part("bias"), &[n])?;
        }
        if let (Some(quantization), true) = (quantization, scheme != LinearScheme::Float) {
            self.static_scale(name, quantization, scheme.group_size().is_some())?;
        }
        Ok(())
    }

    fn float_linear(&self, of: Rows<'_>) -> Result<Result<LinearWeights, FormatError>, WeightsError> {
        let len = of.rows.len();
        let weight = self.float_rows(&format!("{}.weight", of.name), &[of.n, of.k], of.rows)?;
        Ok(FloatLinear::new(len, of.k, weight, of.bias).map(LinearWeights::Float))
    }

    fn int8_linear(&self, of: Rows<'_>) -> Result<Result<LinearWeights, FormatError>, WeightsError> {
        let Rows { name, n, k, rows, .. } = of;
        let bytes = self.rows_of_bytes(&format!("{name}.w8"), (Dtype::I8, "I8"), (n, k), rows.clone())?;
        let mut w8 = self.room(&format!("{name}.w8"), bytes.len())?;
        w8.extend(bytes.iter().map(|byte| byte.cast_signed()));
        let s1 = self.f32_rows(&format!("{name}.s1"), n, rows.clone())?;
        Ok(Int8Linear::new((rows.len(), k), w8, s1, of.bias, of.ta).map(LinearWeights::W8))
    }

    fn quantized_linear(
        &self,
        of: Rows<'_>,
        group_size: GroupSize,
    ) -> Result<Result<LinearWeights, FormatError>, WeightsError> {
        let Rows { name, n, k, rows, .. } = of;
        let groups = group_size.num_groups(k);
        let bytes = |part: &str, columns: usize| {
            let name = format!("{name}.{part}");
            let source = self.rows_of_bytes(&name, (Dtype::U8, "U8"), (n, columns), rows.clone())?;
            let mut bytes = self.room(&name, source.len())?;
            bytes.extend_from_slice(source);
            Ok::<_, WeightsError>(bytes)
        };
        let parts = QuantizedParts {
            q: bytes("q", int4::row_bytes(k))?,
            zero: bytes("zero", int4::row_bytes(groups))?,
            s2: bytes("s2", groups)?,
            s1: self.f32_rows(&format!("{name}.s1"), n, rows.clone())?,
            bias: of.bias,
            ta: of.ta,
        };
        Ok(QuantizedLinear::new((rows.len(), k), group_size, parts).map(LinearWeights::W4))
    }

    /// Some rows of a tensor `[n, columns]` of bytes.
    fn rows_of_bytes(
        &self,
        name: &str,
        (dtype, expected): (Dtype, &'static str),
        (n, columns): (usize, usize),
        rows: Range<usize>,
    ) -> Result<&[u8], WeightsError> {
        let bytes = self.bytes(name, dtype, expected, &[n, columns])?;
        Ok(&bytes[rows.start * columns..rows.end * columns])
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
