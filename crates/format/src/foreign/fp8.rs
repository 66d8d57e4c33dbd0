//! Models in floats of eight bits, as DeepSeek and Qwen publish them (`quant_method` fp8).
//!
//! `weight` F8_E4M3 `[n, k]`, and what each block of `weight_block_size` is multiplied by in `weight_scale_inv`
//! `[ceil(n / rows), ceil(k / columns)]`. Without blocks it is one number, or one an output.

use safetensors::Dtype;

use super::error::ForeignError;
use super::fields::Fields;
use super::packed::{Codes, Groups, PackedLinear, Scales, Zeros};
use super::part::{Named, Parts};

/// Ends of the names of a linear's tensors.
pub const PARTS: [&str; 3] = ["weight", "weight_scale_inv", "weight_scale"];

/// Scales of activations, which stay floats here.
pub const LEFT_OUT: [&str; 2] = ["input_scale", "activation_scale"];

/// How a folder's linears were quantized.
#[derive(Debug)]
pub struct Fp8 {
    block: Option<[usize; 2]>,
}

impl Fp8 {
    pub fn read(fields: &Fields<'_>) -> Result<Self, ForeignError> {
        if !matches!(fields.text("fmt")?, None | Some("e4m3" | "float8_e4m3fn")) {
            return Err(fields.refused("fmt", "e4m3"));
        }
        Ok(Self {
            block: fields.pair("weight_block_size")?,
        })
    }

    /// What was done, for people.
    pub fn described(&self) -> String {
        match self.block {
            Some([rows, columns]) => format!("fp8 (in blocks of {rows} x {columns})"),
            None => "fp8".to_owned(),
        }
    }

    pub fn unpack<'a>(&self, parts: &Parts<'a>) -> Result<PackedLinear<'a>, ForeignError> {
        let weight = parts.required("weight", "")?;
        let weight = weight.of_type(&[Dtype::F8_E4M3], "F8_E4M3")?;
        let [n, k] = weight.matrix()?;
        let scale = match parts.optional("weight_scale") {
            Some(scale) => scale,
            None => parts.required("weight_scale_inv", "")?,
        };
        let (scales, groups) = match self.block {
            Some(block) => blocks(scale, [n, k], block)?,
            None => rows(scale, [n, k])?,
        };
        Ok(PackedLinear {
            n,
            k,
            codes: Codes::float8(weight.part.bytes),
            scales,
            zeros: Zeros::One(0.0),
            groups,
        })
    }
}

/// Scales of blocks; the last ones may be cut by the matrix's ends.
pub(super) fn blocks<'a>(
    scale: Named<'a>,
    [n, k]: [usize; 2],
    [rows, columns]: [usize; 2],
) -> Result<(Scales<'a>, Groups), ForeignError> {
    let across = k.div_ceil(columns);
    let scale = scale.shaped(&[n.div_ceil(rows), across])?;
    let scales = Scales {
        name: scale.name,
        values: scale.floats()?,
        outputs: rows,
        strides: [across, 1],
    };
    Ok((scales, Groups::Runs(columns)))
}

/// One scale for the matrix, or one an output.
pub(super) fn rows<'a>(scale: Named<'a>, [n, k]: [usize; 2]) -> Result<(Scales<'a>, Groups), ForeignError> {
    let outputs = match *scale.part.shape {
        [] | [1] | [1, 1] => n,
        [len] | [len, 1] if len == n => 1,
        _ => return Err(scale.misshapen(format!("[], [1], [{n}] or [{n}, 1]"))),
    };
    let scales = Scales {
        name: scale.name,
        values: scale.floats()?,
        outputs,
        strides: [1, 0],
    };
    Ok((scales, Groups::Runs(k)))
}
