//! Linears as compressed-tensors has them.

use std::path::Path;

use dualgrain_format::checkpoint::{Dtype, TensorSpec};
use dualgrain_format::{GroupSize, Int8Linear, LinearScheme, LinearWeights, QuantizedLinear};
use serde_json::Value;

use crate::compressed::{description, packing};
use crate::config_file;
use crate::error::ExportError;
use crate::floats::bf16_weights;
use crate::folder::{LinearForm, bf16_spec, tensor_spec};
use crate::folding::{Folding, ScalePlace};
use crate::formats::ExportFormat;
use crate::source::{Source, StoredLinear};

/// A folder of compressed-tensors in the making.
#[derive(Debug)]
pub struct CompressedForm {
    format: ExportFormat,
    folding: Folding,
}

impl CompressedForm {
    /// With INT8 activations or without, as `format` says.
    ///
    /// # Errors
    /// A mixture of experts, a transform, or groups that do not divide their rows.
    pub fn new(source: &Source, format: ExportFormat) -> Result<Self, ExportError> {
        if source.config.mixture.is_some() {
            return Err(ExportError::Unsupported {
                format,
                what: "a mixture of experts".to_owned(),
                expected: "one feed-forward a block, or hf as the format".to_owned(),
            });
        }
        if let Some(block) = source.config.hadamard_down {
            return Err(ExportError::Transform { block, format });
        }
        let head = source.head_name();
        let mut of_blocks = source.linears.iter().filter(|linear| linear.name != head);
        of_blocks.try_for_each(|linear| check_groups(linear, format))?;
        Ok(Self {
            format,
            folding: Folding::new(format),
        })
    }

    /// What became of the scales.
    pub fn into_folding(self) -> Folding {
        self.folding
    }

    fn is_packed(&self, scheme: LinearScheme) -> bool {
        scheme != LinearScheme::W8 || self.format == ExportFormat::CompressedTensorsW4a16
    }

    fn quantized(&mut self, name: &str, linear: &QuantizedLinear) -> Result<Vec<Vec<u8>>, ExportError> {
        let mut scales = Vec::with_capacity(linear.n() * linear.num_groups() * 2);
        for (row, &s1) in linear.s1().iter().enumerate() {
            for (group, &s2) in linear.s2_row(row).iter().enumerate() {
                let place = ScalePlace {
                    linear: name,
                    row,
                    group,
                };
                scales.extend(self.folding.fold(place, s1, s2)?.to_le_bytes());
            }
        }
        let shape = shape_bytes(linear.n(), linear.k());
        Ok(vec![
            packing::codes(linear),
            packing::zero_points(linear),
            scales,
            shape,
        ])
    }

    fn int8(&mut self, name: &str, linear: &Int8Linear) -> Result<Vec<Vec<u8>>, ExportError> {
        let mut scales = Vec::with_capacity(linear.n() * 2);
        for (row, &s1) in linear.s1().iter().enumerate() {
            let place = ScalePlace {
                linear: name,
                row,
                group: 0,
            };
            scales.extend(self.folding.fold(place, s1, 1)?.to_le_bytes());
        }
        if !self.is_packed(LinearScheme::W8) {
            let codes = linear.w8().iter().map(|code| code.cast_unsigned()).collect();
            return Ok(vec![codes, scales]);
        }
        let packed = packing::bytes(linear.w8(), linear.k());
        Ok(vec![packed, scales, shape_bytes(linear.n(), linear.k())])
    }
}

impl LinearForm for CompressedForm {
    fn format(&self) -> ExportFormat {
        self.format
    }

    fn specs(&self, source: &Source, linear: &StoredLinear) -> Vec<TensorSpec> {
        let (n, k) = (linear.n, linear.k);
        let spec = |part: &str, dtype, shape: &[usize]| tensor_spec(&linear.published, part, dtype, shape);
        match linear.scheme {
            _ if linear.name == source.head_name() => vec![bf16_spec(linear)],
            LinearScheme::Float => vec![bf16_spec(linear)],
            LinearScheme::W8 if self.is_packed(linear.scheme) => vec![
                spec("weight_packed", Dtype::I32, &[n, k.div_ceil(4)]),
                spec("weight_scale", Dtype::F16, &[n, 1]),
                spec("weight_shape", Dtype::I64, &[2]),
            ],
            LinearScheme::W8 => vec![
                spec("weight", Dtype::I8, &[n, k]),
                spec("weight_scale", Dtype::F16, &[n, 1]),
            ],
            LinearScheme::W4 { group_size } => {
                let groups = group_size.num_groups(k);
                vec![
                    spec("weight_packed", Dtype::I32, &[n, k.div_ceil(8)]),
                    spec("weight_zero_point", Dtype::I32, &[n.div_ceil(8), groups]),
                    spec("weight_scale", Dtype::F16, &[n, groups]),
                    spec("weight_shape", Dtype::I64, &[2]),
                ]
            }
        }
    }

    fn tensors(&mut self, source: &Source, linear: &StoredLinear) -> Result<Vec<Vec<u8>>, ExportError> {
        if linear.name == source.head_name() {
            return Ok(vec![bf16_weights(source, linear)?]);
        }
        match source.read(linear)? {
            LinearWeights::W4(weights) => self.quantized(&linear.name, &weights),
            LinearWeights::W8(weights) => self.int8(&linear.name, &weights),
            LinearWeights::Float(_) => Ok(vec![bf16_weights(source, linear)?]),
        }
    }

    fn config(&self, source: &Source, dir: &Path) -> Result<Value, ExportError> {
        let described = description::quantization_config(source, self.format);
        config_file::rewritten(dir, Some(described), source.has_own_head())
    }
}

fn shape_bytes(n: usize, k: usize) -> Vec<u8> {
    [n as i64, k as i64]
        .into_iter()
        .flat_map(i64::to_le_bytes)
        .collect()
}

/// Programs that read the format divide rows into whole groups.
fn check_groups(linear: &StoredLinear, format: ExportFormat) -> Result<(), ExportError> {
    match linear.scheme {
        LinearScheme::W4 {
            group_size: GroupSize::Along(size),
        } if !linear.k.is_multiple_of(size) => Err(ExportError::Groups {
            linear: linear.name.clone(),
            k: linear.k,
            group_size: GroupSize::Along(size),
            multiple: size,
            format,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_do_not_divide_a_row_are_refused_by_name() {
        let linear = |k: usize, scheme: LinearScheme| StoredLinear {
            name: "model.layers.0.mlp.down_proj".into(),
            published: String::new(),
            n: 64,
            k,
            has_bias: false,
            scheme,
            hadamard: None,
        };
        let check = |k, scheme| check_groups(&linear(k, scheme), ExportFormat::CompressedTensors);
        let groups = LinearScheme::w4(GroupSize::Along(128));
        assert!(check(256, groups).is_ok());
        assert!(check(200, LinearScheme::w4(GroupSize::WholeRow)).is_ok());
        assert!(check(200, LinearScheme::W8).is_ok());
        let error = check(200, groups).unwrap_err().to_string();
        for part in [
            "`model.layers.0.mlp.down_proj`",
            "200 weights in groups of 128",
            "a multiple of 128",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
