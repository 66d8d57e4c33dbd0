//! AWQ (arXiv 2306.00978) as AutoAWQ writes it in the version `gemm`.
//!
//! `qweight` I32 `[k, n / 8]`, `qzeros` I32 `[groups, n / 8]`: eight neighbouring outputs share a word, in the order 0, 2, 4, 6, 1, 3, 5, 7 from
//! its lowest bits. `scales` `[groups, n]`.

use super::error::ForeignError;
use super::fields::Fields;
use super::packed::{Codes, Groups, PLACES, PackedLinear, Scales, Zeros};
use super::part::Parts;
use super::words::Words;

/// Ends of the names of a linear's tensors.
pub const PARTS: [&str; 3] = ["qweight", "qzeros", "scales"];

/// How a folder's linears were quantized.
#[derive(Debug)]
pub struct Awq {
    group_size: Option<usize>,
}

impl Awq {
    pub fn read(fields: &Fields<'_>) -> Result<Self, ForeignError> {
        let version = fields.text("version")?.unwrap_or("gemm");
        if !version.eq_ignore_ascii_case("gemm") {
            return Err(fields.refused("version", "gemm"));
        }
        let bits = fields.spelling(["bits", "w_bit"]);
        if fields.count(bits)? != Some(4) {
            return Err(fields.refused(bits, "4"));
        }
        if !fields.flag("zero_point", true)? {
            return Err(fields.refused("zero_point", "true"));
        }
        let group_size = fields.group_size(fields.spelling(["group_size", "q_group_size"]))?;
        Ok(Self { group_size })
    }

    /// What was done, for people.
    pub fn described(&self) -> String {
        match self.group_size {
            Some(len) => format!("awq (4 bits in groups of {len})"),
            None => "awq (4 bits in one group a row)".to_owned(),
        }
    }

    pub fn unpack<'a>(&self, parts: &Parts<'a>) -> Result<PackedLinear<'a>, ForeignError> {
        let qweight = parts.required("qweight", "")?;
        let words = Words::of(qweight)?;
        let [k, columns] = qweight.matrix()?;
        let n = columns
            .checked_mul(PLACES.len())
            .ok_or_else(|| qweight.misshapen("fewer columns"))?;
        let len = self.group_size.unwrap_or(k);
        if !k.is_multiple_of(len) {
            return Err(qweight.misshapen(format!("rows that the group size ({len}) divides")));
        }
        let num_groups = k / len;
        let scales = parts.required("scales", "")?.shaped(&[num_groups, n])?;
        let zeros = parts.required("qzeros", "")?.shaped(&[num_groups, columns])?;
        Ok(PackedLinear {
            n,
            k,
            codes: Codes::Interleaved(words),
            scales: Scales {
                name: "scales",
                values: scales.floats()?,
                outputs: 1,
                strides: [1, n],
            },
            zeros: Zeros::Interleaved(Words::of(zeros)?),
            groups: Groups::Runs(len),
        })
    }
}
