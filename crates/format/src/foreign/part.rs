//! The tensors of one linear, with their types and shapes checked before anything is read of them.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::Dtype;

use super::error::ForeignError;
use super::small_floats::e8m0;

/// A tensor as it lies in a file; its bytes are as many as type and shape say.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost dimension first.
    pub shape: &'a [usize],
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The tensors of one linear by the ends of their names.
#[derive(Debug, Clone, Default)]
pub struct Parts<'a>(BTreeMap<&'static str, Part<'a>>);

impl<'a> FromIterator<(&'static str, Part<'a>)> for Parts<'a> {
    fn from_iter<I: IntoIterator<Item = (&'static str, Part<'a>)>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

/// One of the tensors, under its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub name: &'static str,
    pub part: Part<'a>,
}

impl<'a> Parts<'a> {
    pub(super) fn optional(&self, name: &'static str) -> Option<Named<'a>> {
        let part = *self.0.get(name)?;
        Some(Named { name, part })
    }

    /// A tensor that must be there; `reason` is the end of the sentence that says so.
    pub(super) fn required(
        &self,
        name: &'static str,
        reason: &'static str,
    ) -> Result<Named<'a>, ForeignError> {
        let missing = ForeignError::Missing { part: name, reason };
        self.optional(name).ok_or(missing)
    }
}

impl<'a> Named<'a> {
    /// The tensor, if it has one of some types.
    pub fn of_type(self, types: &[Dtype], expected: &'static str) -> Result<Self, ForeignError> {
        match types.contains(&self.part.dtype) {
            true => Ok(self),
            false => Err(ForeignError::Type {
                part: self.name,
                got: self.part.dtype,
                expected,
            }),
        }
    }

    /// Rows and columns of a tensor of two dimensions, neither of them 0.
    pub fn matrix(self) -> Result<[usize; 2], ForeignError> {
        match *self.part.shape {
            [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
            _ => Err(self.misshapen("a matrix that is not empty")),
        }
    }

    /// The tensor, if it has a certain shape.
    pub fn shaped(self, shape: &[usize]) -> Result<Self, ForeignError> {
        match self.part.shape == shape {
            true => Ok(self),
            false => Err(self.misshapen(format!("{shape:?}"))),
        }
    }

    pub fn misshapen(self, expected: impl Into<String>) -> ForeignError {
        ForeignError::Shape {
            part: self.name,
            got: self.part.shape.to_vec(),
            expected: expected.into(),
        }
    }

    /// Elements of an I32 tensor.
    pub fn i32s(self) -> Result<Vec<i32>, ForeignError> {
        let Self { part, .. } = self.of_type(&[Dtype::I32], "I32")?;
        let words = part.bytes.chunks_exact(4);
        Ok(words
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }

    /// A float tensor of any of the three types.
    pub fn floats(self) -> Result<Floats<'a>, ForeignError> {
        let Self { part, .. } = self.of_type(&[Dtype::F32, Dtype::F16, Dtype::BF16], "F32, F16 or BF16")?;
        Ok(Floats(part))
    }

    /// Powers of two, stored as their exponents.
    pub fn exponents(self) -> Result<Floats<'a>, ForeignError> {
        let Self { part, .. } = self.of_type(&[Dtype::U8], "U8")?;
        Ok(Floats(part))
    }
}

/// A tensor of floats or of exponents, read one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floats<'a>(Part<'a>);

impl Floats<'_> {
    /// Element `index` of the flat tensor, exactly.
    pub fn at(self, index: usize) -> f32 {
        let bytes = self.0.bytes;
        let half = || [bytes[2 * index], bytes[2 * index + 1]];
        match self.0.dtype {
            Dtype::F16 => f16::from_le_bytes(half()).to_f32(),
            Dtype::BF16 => bf16::from_le_bytes(half()).to_f32(),
            Dtype::U8 => e8m0(bytes[index]),
            _ => {
                let b = &bytes[4 * index..4 * index + 4];
                f32::from_le_bytes([b[0], b[1], b[2], b[3]])
            }
        }
    }
}
