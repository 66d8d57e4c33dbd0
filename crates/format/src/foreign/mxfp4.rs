//! Experts in floats of four bits with a power of two for every 32 of them, as gpt-oss is published (`quant_method` mxfp4; OCP
//! Microscaling Formats, version 1.0).
//!
//! `blocks` U8 `[n, k / 32, 16]`, two codes a byte, the even one in the low half, and the exponents `scales` U8 `[n, k / 32]`, stored
//! with 127 added.

use safetensors::Dtype;

use super::error::ForeignError;
use super::packed::{Codes, Groups, PackedLinear, Scales, Zeros};
use super::part::Parts;

/// Ends of the names of a linear's tensors.
pub const PARTS: [&str; 2] = ["blocks", "scales"];

/// Floats that share an exponent.
const BLOCK: usize = 32;

/// What was done, for people.
pub fn described() -> String {
    format!("mxfp4 (4 bits in groups of {BLOCK})")
}

pub fn unpack<'a>(parts: &Parts<'a>) -> Result<PackedLinear<'a>, ForeignError> {
    let blocks = parts.required("blocks", "")?.of_type(&[Dtype::U8], "U8")?;
    let (n, across) = match *blocks.part.shape {
        [n, across, bytes] if n > 0 && across > 0 && bytes == BLOCK / 2 => (n, across),
        _ => return Err(blocks.misshapen(format!("[outputs, blocks, {}], not empty", BLOCK / 2))),
    };
    let scale = parts.required("scales", "")?.shaped(&[n, across])?;
    Ok(PackedLinear {
        n,
        k: across * BLOCK,
        codes: Codes::Float4(blocks.part.bytes),
        scales: Scales {
            name: scale.name,
            values: scale.exponents()?,
            outputs: 1,
            strides: [across, 1],
        },
        zeros: Zeros::One(0.0),
        groups: Groups::Runs(BLOCK),
    })
}
