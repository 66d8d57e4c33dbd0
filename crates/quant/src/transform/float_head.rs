//! The output layer of an original as floats, slice by slice.

use dualgrain_engine::{EngineError, ModelConfig};
use dualgrain_format::checkpoint::{Dtype, widen};
use dualgrain_format::{FloatLinear, FloatValues};

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
    dtype: Dtype,
    bytes: &'a [u8],
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
        let (dtype, _, bytes) = original
            .weights()
            .raw(&format!("{name}.weight"))
            .map_err(EngineError::from)?;
        Ok(Self {
            original,
            dtype,
            bytes,
            n: config.vocab_size,
            k: config.hidden_size,
        })
    }

    /// Slices of at most [`SLICE_ROWS`] rows in f32.
    pub fn slices(&self) -> impl Iterator<Item = Result<Vec<f32>, QuantError>> {
        let row_bytes = self.bytes.len() / self.n;
        self.bytes.chunks(SLICE_ROWS * row_bytes).map(move |stored| {
            let mut rows = vec![0.0; stored.len() / row_bytes * self.k];
            widen(self.dtype, stored, &mut rows);
            self.original.weights().release_pages();
            self.original.change_head_rows(&mut rows)?;
            Ok(rows)
        })
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
