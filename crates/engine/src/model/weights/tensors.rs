//! Tensors by name, checked when they are taken, and none left over.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use dualgrain_format::FloatValues;
use dualgrain_format::checkpoint::{Dtype, TensorEntry, widen};
use half::bf16;

use super::error::WeightsError;
use super::mapping::MappedFile;

/// The mapped tensors of a model folder (one file, or shards with an index).
///
/// A name that is not there is also looked for without its leading `model.` or `transformer.`: checkpoints of the
/// bare model leave that out.
#[derive(Debug)]
pub struct Weights {
    pub(super) dir: PathBuf,
    pub(super) shards: Vec<Shard>,
    pub(super) tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    pub(super) file: MappedFile,
}

#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) shard: usize,
    pub(super) entry: TensorEntry,
    pub(super) used: AtomicBool,
}

/// Leading parts of tensor names that checkpoints of the bare model leave out.
pub const LEADING: [&str; 2] = ["model.", "transformer."];

/// Endings of tensors that carry no information: old checkpoints store what follows from config.json.
const IGNORABLE: [&str; 1] = [".rotary_emb.inv_freq"];

/// Unused tensors named in an error.
const NUM_NAMED: usize = 5;

impl Weights {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of all tensors, in ascending order.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Bytes of all tensors.
    pub fn size_bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.entry.bytes.len()).sum()
    }

    /// Bytes that all tensors take when they are loaded: f16 becomes f32.
    pub fn loaded_bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| {
            let factor = if tensor.entry.dtype == Dtype::F16 { 2 } else { 1 };
            factor * tensor.entry.bytes.len() as u64
        };
        self.tensors.values().map(bytes).sum()
    }

    /// Whether tensor `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Type, shape and bytes of a tensor as they are stored: what a quantizer copies unchanged.
    ///
    /// # Errors
    /// Missing (with the nearest name).
    pub fn raw(&self, name: &str) -> Result<(Dtype, &[usize], &[u8]), WeightsError> {
        let tensor = self.take(name)?;
        let TensorEntry { dtype, shape, .. } = &tensor.entry;
        Ok((*dtype, shape, self.tensor_bytes(tensor)))
    }

    /// Takes a float tensor: bf16 stays bf16, f16 and f32 come as f32.
    ///
    /// # Errors
    /// Missing (with the nearest name), another shape or a type that is no float, a value that is not finite.
    pub fn float(&self, name: &str, shape: &[usize]) -> Result<FloatValues, WeightsError> {
        self.float_rows(name, shape, 0..shape.first().copied().unwrap_or(1))
    }

    /// As [`Self::float`], only some entries of the first dimension.
    pub(super) fn float_rows(
        &self,
        name: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<FloatValues, WeightsError> {
        let tensor = self.take_float(name, shape)?;
        if tensor.entry.dtype != Dtype::BF16 {
            return self.widened(name, tensor, rows).map(FloatValues::F32);
        }
        let (first, bytes) = self.rows_of(tensor, rows);
        let mut values = self.room(name, bytes.len() / 2)?;
        values.extend(bytes.chunks_exact(2).map(bf16_at));
        self.check_finite((name, tensor), first, &values[..], |v: &bf16| v.to_f32())?;
        Ok(FloatValues::Bf16(values))
    }

    /// Takes a float tensor as f32.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let tensor = self.take_float(name, shape)?;
        self.widened(name, tensor, 0..shape.first().copied().unwrap_or(1))
    }

    /// As [`Self::f32`] of a vector, only some of it.
    pub(super) fn f32_rows(
        &self,
        name: &str,
        len: usize,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, WeightsError> {
        let tensor = self.take_float(name, &[len])?;
        self.widened(name, tensor, rows)
    }

    fn widened(&self, name: &str, tensor: &Tensor, rows: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let (first, bytes) = self.rows_of(tensor, rows);
        let len = 8 * bytes.len() / tensor.entry.dtype.bitsize();
        let mut values = self.room(name, len)?;
        values.resize(len, 0.0);
        widen(tensor.entry.dtype, bytes, &mut values);
        self.check_finite((name, tensor), first, &values, |v| *v)?;
        Ok(values)
    }

    /// Bytes of some entries of the first dimension, and the index of their first element.
    pub(super) fn rows_of(&self, tensor: &Tensor, rows: Range<usize>) -> (usize, &[u8]) {
        let row = tensor.entry.shape.iter().skip(1).product::<usize>();
        let row_bytes = row * tensor.entry.dtype.bitsize() / 8;
        let bytes = self.tensor_bytes(tensor);
        (
            rows.start * row,
            &bytes[rows.start * row_bytes..rows.end * row_bytes],
        )
    }

    /// An empty vector for `len` elements of a tensor: sizes come from files, and a machine may be too small for them.
    pub(super) fn room<T>(&self, name: &str, len: usize) -> Result<Vec<T>, WeightsError> {
        let mut room = Vec::new();
        match room.try_reserve_exact(len) {
            Ok(()) => Ok(room),
            Err(_) => Err(WeightsError::OutOfMemory {
                path: self
                    .find(name)
                    .map_or_else(|| self.dir.clone(), |tensor| self.path(tensor)),
                name: name.into(),
                size_bytes: len.saturating_mul(size_of::<T>()),
            }),
        }
    }

    /// Takes a float matrix [rows.len(), columns] and puts its row i at row `rows[i]` of `out`, so that joining
    /// needs no second copy.
    pub(crate) fn f32_scatter(
        &self,
        name: &str,
        columns: usize,
        rows: &[usize],
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let tensor = self.take_float(name, &[rows.len(), columns])?;
        let dtype = tensor.entry.dtype;
        let row_bytes = columns * dtype.bitsize() / 8;
        let source = self.tensor_bytes(tensor).chunks_exact(row_bytes);
        for (i, (row, bytes)) in rows.iter().zip(source).enumerate() {
            let values = &mut out[row * columns..(row + 1) * columns];
            widen(dtype, bytes, values);
            self.check_finite((name, tensor), i * columns, values, |v| *v)?;
        }
        Ok(())
    }

    /// Lets the system drop the mapped pages read so far, so that resident memory stays small.
    pub fn release_pages(&self) {
        for shard in &self.shards {
            shard.file.release_pages();
        }
    }

    /// Refuses tensors that nothing took, except those known to carry no information.
    ///
    /// # Errors
    /// The names of unused tensors.
    pub fn finish(&self) -> Result<(), WeightsError> {
        let unused = self.tensors.iter().filter(|(name, tensor)| {
            !tensor.used.load(Ordering::Relaxed) && !IGNORABLE.iter().any(|end| name.ends_with(end))
        });
        let names = unused.map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if names.is_empty() {
            return Ok(());
        }
        Err(WeightsError::Unused {
            dir: self.dir.clone(),
            count: names.len(),
            names: names.into_iter().take(NUM_NAMED).collect(),
        })
    }

    /// A tied checkpoint may hold its head a second time, but not a different one.
    ///
    /// # Errors
    /// [`WeightsError::TiedHead`].
    pub(crate) fn check_tied_head(&self, head: &str, embedding: &str) -> Result<(), WeightsError> {
        let name = format!("{head}.weight");
        if !self.contains(&name) {
            return Ok(());
        }
        let (a, b) = (self.raw(&name)?, self.raw(&format!("{embedding}.weight"))?);
        if a == b {
            return Ok(());
        }
        Err(WeightsError::TiedHead {
            dir: self.dir.clone(),
            head: head.into(),
            embedding: embedding.into(),
        })
    }

    fn find(&self, name: &str) -> Option<&Tensor> {
        let bare = LEADING.iter().filter_map(|leading| name.strip_prefix(leading));
        std::iter::once(name)
            .chain(bare)
            .find_map(|name| self.tensors.get(name))
    }

    fn take(&self, name: &str) -> Result<&Tensor, WeightsError> {
        match self.find(name) {
            Some(tensor) => {
                tensor.used.store(true, Ordering::Relaxed);
                Ok(tensor)
            }
            None => Err(WeightsError::Missing {
                dir: self.dir.clone(),
                name: name.into(),
                nearest: self.nearest(name),
            }),
        }
    }

    fn nearest(&self, name: &str) -> Option<String> {
        // A misspelt tensor is one that nothing else has asked for.
        let distance = |(other, tensor): &(&String, &Tensor)| {
            let used = tensor.used.load(Ordering::Relaxed);
            (used, strsim::levenshtein(name, other))
        };
        let (nearest, _) = self.tensors.iter().min_by_key(distance)?;
        Some(nearest.clone())
    }

    pub(super) fn take_shaped(&self, name: &str, shape: &[usize]) -> Result<&Tensor, WeightsError> {
        let tensor = self.take(name)?;
        if tensor.entry.shape == shape {
            return Ok(tensor);
        }
        Err(WeightsError::Shape {
            path: self.path(tensor),
            name: name.into(),
            expected: shape.to_vec(),
            got: tensor.entry.shape.clone(),
        })
    }

    fn take_float(&self, name: &str, shape: &[usize]) -> Result<&Tensor, WeightsError> {
        let tensor = self.take_shaped(name, shape)?;
        match tensor.entry.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(tensor),
            got => Err(self.type_error(name, tensor, "F32, F16 or BF16", got)),
        }
    }

    /// Takes the bytes of a tensor of one certain type.
    pub(super) fn bytes(
        &self,
        name: &str,
        dtype: Dtype,
        expected: &'static str,
        shape: &[usize],
    ) -> Result<&[u8], WeightsError> {
        let tensor = self.take_shaped(name, shape)?;
        match tensor.entry.dtype {
            got if got == dtype => Ok(self.tensor_bytes(tensor)),
            got => Err(self.type_error(name, tensor, expected, got)),
        }
    }

    fn check_finite<T>(
        &self,
        (name, tensor): (&str, &Tensor),
        first: usize,
        values: &[T],
        widen: impl Fn(&T) -> f32,
    ) -> Result<(), WeightsError> {
        match values.iter().position(|value| !widen(value).is_finite()) {
            None => Ok(()),
            Some(index) => Err(WeightsError::NotFinite {
                path: self.path(tensor),
                name: name.into(),
                index: first + index,
                got: widen(&values[index]),
            }),
        }
    }

    fn type_error(&self, name: &str, tensor: &Tensor, expected: &'static str, got: Dtype) -> WeightsError {
        WeightsError::Type {
            path: self.path(tensor),
            name: name.into(),
            expected,
            got,
        }
    }

    pub(super) fn path(&self, tensor: &Tensor) -> PathBuf {
        self.shards[tensor.shard].path.clone()
    }

    fn tensor_bytes(&self, tensor: &Tensor) -> &[u8] {
        // The table was checked against these very bytes when the file was mapped.
        &self.shards[tensor.shard].file.bytes()[tensor.entry.bytes.clone()]
    }
}

fn bf16_at(bytes: &[u8]) -> bf16 {
    bf16::from_le_bytes([bytes[0], bytes[1]])
}
