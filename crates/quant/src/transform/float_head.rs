//! The output layer of an original as floats, slice by slice.

use std::ops::Range;

use dualgrain_engine::{EngineError, ModelConfig};
use dualgrain_format::checkpoint::Dtype;
use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};

use crate::error::QuantError;
use crate::transform::rotation::matrix::to_bf16;
use crate::transform::rotation::original::Original;

/// Rows that are widened at a time: a head of 128,256 rows would take gigabytes in f32.
const SLICE_ROWS: usize = 4096;

/// The head as floats, rotated where the original is.
///
/// # Errors
/// A missing, misshapen or non-finite tensor.
pub fn float_head(config: &ModelConfig, original: &Original<'_>) -> Result<FloatLinear, QuantError> {
    float(&FloatHead::new(config, original)?)
}

/// The head's rows: a tied head is the embedding.
pub struct FloatHead<'a> {
    original: &'a Original<'a>,
    name: &'static str,
    dtype: Dtype,
    /// Entries of the vocabulary.
    pub n: usize,
    /// Channels of the stream.
    pub k: usize,
}

impl<'a> FloatHead<'a> {
    /// The head of `original`.
    ///
    /// # Errors
    /// A missing tensor.
    pub fn new(config: &ModelConfig, original: &'a Original<'a>) -> Result<Self, QuantError> {
        let (head, embedding) = (config.family.head_name(), config.family.embedding_name());
        let name = if config.tie_embeddings { embedding } else { head };
        let stored = original.weights().stored(&format!("{name}.weight"));
        let (dtype, ..) = stored.map_err(EngineError::from)?;
        Ok(Self {
            original,
            name,
            dtype,
            n: config.vocab_size,
            k: config.hidden_size,
        })
    }

    /// Slices of at most [`SLICE_ROWS`] rows in f32.
    pub fn slices(&self) -> impl Iterator<Item = Result<Vec<f32>, QuantError>> {
        (0..self.n).step_by(SLICE_ROWS).map(|first| {
            let mut rows = self.rows(first..(first + SLICE_ROWS).min(self.n))?;
            self.original.weights().release_pages();
            self.original.change_head_rows(&mut rows)?;
            Ok(rows)
        })
    }

    /// Some rows as they are stored.
    fn rows(&self, rows: Range<usize>) -> Result<Vec<f32>, QuantError> {
        let weights = self.original.weights();
        let linear = weights.linear_rows(self.name, ((self.n, self.k), rows), false, None);
        match linear.map_err(EngineError::from)? {
            LinearWeights::Float(linear) => Ok(match linear.into_parts().0 {
                FloatValues::F32(values) => values,
                halves @ FloatValues::Bf16(_) => halves.to_f32(),
            }),
            _ => Err(QuantError::AlreadyQuantized {
                path: weights.dir().to_path_buf(),
            }),
        }
    }
}

/// In the type that the folder has it in; f16 becomes f32.
fn float(head: &FloatHead<'_>) -> Result<FloatLinear, QuantError> {
    let slices = head.slices();
    let values = if head.dtype == Dtype::BF16 {
        let halves = |rows: Result<Vec<f32>, QuantError>| Ok::<_, QuantError>(to_bf16(&rows?));
        FloatValues::Bf16(slices.map(halves).collect::<Result<Vec<_>, _>>()?.concat())
    } else {
        FloatValues::F32(slices.collect::<Result<Vec<_>, _>>()?.concat())
    };
    Ok(FloatLinear::new(head.n, head.k, values, None)?)
}
