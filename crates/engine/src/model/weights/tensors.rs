//! Tensors by name, checked when they are taken, and none left over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use dualgrain_format::FloatValues;
use dualgrain_format::checkpoint::{Dtype, TensorEntry, f32_bytes, widen};
use dualgrain_format::foreign::ForeignScheme;
use half::bf16;

use super::blocks::Blocks;
use super::error::WeightsError;
use super::mapping::MappedFile;
use super::names::LEADING;

/// The mapped tensors of a model folder (one file, or shards with an index).
///
/// Names are those without what wrappers add (`module.`, `_orig_mod.`, `base_model.model.`). A name that is not there is also looked
/// for without its leading `model.` or `transformer.`: checkpoints of the bare model leave that out.
#[derive(Debug)]
pub struct Weights {
    pub(super) dir: PathBuf,
    pub(super) shards: Vec<Shard>,
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// Tensors that an index lists and that are not there, with their files.
    pub(super) absent: BTreeMap<String, String>,
    pub(super) notices: Vec<String>,
    pub(super) in_floats: InFloats,
    /// How another program quantized the folder.
    pub(super) foreign: Option<ForeignScheme>,
}

/// Parts of a quantized model whose linears are taken as floats, to see what computing them in integers costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InFloats {
    /// The linears of the blocks.
    pub blocks: bool,
    /// The head.
    pub head: bool,
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
    /// What another program packed it into; empty for a tensor that its file holds as it is. The entry is that of the floats then, and
    /// has no bytes.
    pub(super) parts: BTreeMap<&'static str, Tensor>,
    /// How a GGUF file stores it, where that is not the entry's floats row by row. The entry's bytes are those of the blocks then.
    pub(super) blocks: Option<Blocks>,
    /// Whether its file holds a matrix column by column.
    pub(super) transposed: bool,
}

/// Elements of a tied head that are compared at a time.
const COMPARED: usize = 1024;

/// Type, shape and bytes of a tensor.
pub type RawTensor<'a> = (Dtype, &'a [usize], Cow<'a, [u8]>);

impl Weights {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the linears of some parts as floats from now on: the numbers that their integers stand for.
    pub fn take_in_floats(&mut self, parts: InFloats) {
        self.in_floats = parts;
    }

    /// Names of all tensors, in ascending order.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Names of the tensors that were taken so far, in ascending order.
    pub fn used_names(&self) -> Vec<String> {
        let used = self
            .tensors
            .iter()
            .filter(|(_, tensor)| tensor.used.load(Ordering::Relaxed));
        used.map(|(name, _)| name.clone()).collect()
    }

    /// Bytes of all tensors.
    pub fn size_bytes(&self) -> usize {
        self.tensors.values().map(Tensor::stored_bytes).sum()
    }

    /// Bytes that all tensors take when they are loaded: f16, and what another program packed, becomes f32.
    pub fn loaded_bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| match (tensor.is_packed(), tensor.entry.dtype) {
            (true, _) => 4 * tensor.entry.shape.iter().product::<usize>() as u64,
            (false, Dtype::F16) => 2 * tensor.entry.bytes.len() as u64,
            (false, _) => tensor.entry.bytes.len() as u64,
        };
        self.tensors.values().map(bytes).sum()
    }

    /// Whether tensor `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Type, shape and bytes of a tensor as they are stored: what a quantizer copies unchanged. What another program packed comes as
    /// floats.
    ///
    /// # Errors
    /// Missing (with the nearest name); packed and broken.
    pub fn raw(&self, name: &str) -> Result<RawTensor<'_>, WeightsError> {
        let tensor = self.take(name)?;
        let TensorEntry { dtype, shape, .. } = &tensor.entry;
        let rows = 0..shape.first().copied().unwrap_or_default();
        let bytes = match (tensor.is_packed(), tensor.transposed) {
            (false, false) => Cow::Borrowed(self.tensor_bytes(tensor)),
            (false, true) => self.transposed_rows((name, tensor), rows)?,
            (true, _) => Cow::Owned(f32_bytes(&self.widened(name, tensor, rows)?)),
        };
        Ok((*dtype, shape, bytes))
    }

    /// Type and shape of a tensor as [`Self::raw`] gives it, and how many bytes stand for it in the files.
    ///
    /// # Errors
    /// Missing (with the nearest name).
    pub fn stored(&self, name: &str) -> Result<(Dtype, &[usize], usize), WeightsError> {
        let tensor = self.take(name)?;
        let TensorEntry { dtype, shape, .. } = &tensor.entry;
        Ok((*dtype, shape, tensor.stored_bytes()))
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
        let (first, bytes) = self.rows_of((name, tensor), rows)?;
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
        let row = tensor.entry.shape.iter().skip(1).product::<usize>();
        let mut values = self.room(name, rows.len() * row)?;
        values.resize(rows.len() * row, 0.0);
        let first = rows.start * row;
        match tensor.is_packed() {
            true => self.unpack_rows((name, tensor), rows, &mut values)?,
            false => widen(
                tensor.entry.dtype,
                &self.rows_of((name, tensor), rows)?.1,
                &mut values,
            ),
        }
        self.check_finite((name, tensor), first, &values, |v| *v)?;
        Ok(values)
    }

    /// Bytes of some entries of the first dimension, and the index of their first element.
    fn rows_of(
        &self,
        (name, tensor): (&str, &Tensor),
        rows: Range<usize>,
    ) -> Result<(usize, Cow<'_, [u8]>), WeightsError> {
        let row = tensor.entry.shape.iter().skip(1).product::<usize>();
        let first = rows.start * row;
        if tensor.transposed {
            return Ok((first, self.transposed_rows((name, tensor), rows)?));
        }
        let row_bytes = row * tensor.entry.dtype.bitsize() / 8;
        let bytes = self.tensor_bytes(tensor);
        let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
        Ok((first, Cow::Borrowed(bytes)))
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
        if tensor.is_packed() {
            return self.scatter_unpacked((name, tensor), columns, rows, out);
        }
        let dtype = tensor.entry.dtype;
        let row_bytes = columns * dtype.bitsize() / 8;
        let (_, source) = self.rows_of((name, tensor), 0..rows.len())?;
        for (i, (row, bytes)) in rows.iter().zip(source.chunks_exact(row_bytes)).enumerate() {
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

    /// A tied checkpoint may hold its head a second time, in any float type, but not a different one. Returns whether it does.
    ///
    /// # Errors
    /// [`WeightsError::TiedHead`].
    pub fn check_tied_head(&self, head: &str, embedding: &str) -> Result<bool, WeightsError> {
        let name = format!("{head}.weight");
        let Some(copy) = self.find(&name) else {
            return Ok(false);
        };
        copy.used.store(true, Ordering::Relaxed);
        let original = self.take(&format!("{embedding}.weight"))?;
        if copy.entry.shape == original.entry.shape && self.are_equal(copy, original) {
            return Ok(true);
        }
        Err(WeightsError::TiedHead {
            dir: self.dir.clone(),
            head: head.into(),
            embedding: embedding.into(),
        })
    }

    /// Whether two tensors of equally many elements hold the same numbers, whatever their float types.
    fn are_equal(&self, a: &Tensor, b: &Tensor) -> bool {
        if a.is_packed() || b.is_packed() {
            return false;
        }
        let (a_bytes, b_bytes) = (self.tensor_bytes(a), self.tensor_bytes(b));
        let (a, b) = (a.entry.dtype, b.entry.dtype);
        if a == b {
            return a_bytes == b_bytes;
        }
        let is_float = |dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        if !is_float(a) || !is_float(b) {
            return false;
        }
        let piece_bytes = |dtype: Dtype| COMPARED * dtype.bitsize() / 8;
        let mut both = a_bytes.chunks(piece_bytes(a)).zip(b_bytes.chunks(piece_bytes(b)));
        let (mut x, mut y) = ([0.0; COMPARED], [0.0; COMPARED]);
        both.all(|(a_piece, b_piece)| {
            let len = 8 * a_piece.len() / a.bitsize();
            widen(a, a_piece, &mut x[..len]);
            widen(b, b_piece, &mut y[..len]);
            x[..len] == y[..len]
        })
    }

    pub(super) fn find(&self, name: &str) -> Option<&Tensor> {
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
            None => Err(self.missing(name)),
        }
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

    /// Whether a float tensor is there, by its header.
    ///
    /// # Errors
    /// As [`Self::float`], but for its values.
    pub fn expect_float(&self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        self.take_float(name, shape).map(|_| ())
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

    pub(super) fn check_finite<T>(
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

    pub(super) fn tensor_bytes(&self, tensor: &Tensor) -> &[u8] {
        // The table was checked against these very bytes when the file was mapped.
        &self.shards[tensor.shard].file.bytes()[tensor.entry.bytes.clone()]
    }
}

impl Tensor {
    /// Whether another program packed it.
    pub(super) fn is_packed(&self) -> bool {
        !self.parts.is_empty() || self.blocks.is_some()
    }

    fn stored_bytes(&self) -> usize {
        let packed = self.parts.values().map(|part| part.entry.bytes.len());
        self.entry.bytes.len() + packed.sum::<usize>()
    }
}

fn bf16_at(bytes: &[u8]) -> bf16 {
    bf16::from_le_bytes([bytes[0], bytes[1]])
}
