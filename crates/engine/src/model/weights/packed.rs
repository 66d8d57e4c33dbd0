//! Linears that another program quantized: their tensors are gathered under the name that the floats have, and become floats when they
//! are taken, some rows at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use dualgrain_format::checkpoint::{CheckpointError, Dtype, FOREIGN_CONFIGS, TensorEntry};
use dualgrain_format::foreign::{ForeignError, ForeignScheme, PackedLinear, Part, Parts};
use dualgrain_format::text::text_of;
use serde_json::Value;

use super::error::WeightsError;
use super::names::LEADING;
use super::tensors::{Tensor, Weights};

/// Floats that are unpacked at a time where they go to places of their own.
const UNPACKED: usize = 1 << 16;

impl Weights {
    /// Finds out whether another program quantized the folder, and puts a tensor of floats in the place of each linear's tensors.
    pub(super) fn gather_packed(&mut self) -> Result<(), WeightsError> {
        let Some((path, scheme)) = self.foreign_scheme()? else {
            return Ok(());
        };
        let linear_of = |(name, tensor): (&String, &Tensor)| {
            let linear = scheme.linear_of(name, tensor.entry.dtype)?;
            Some(linear.to_owned())
        };
        let linears: Vec<String> = self.tensors.iter().filter_map(linear_of).collect();
        let described = scheme.described();
        self.foreign = Some(scheme);
        for linear in &linears {
            self.gather(linear)?;
        }
        if !linears.is_empty() {
            self.notices
                .push(self.notice_of_packed(&path, (linears.len(), &described)));
        }
        Ok(())
    }

    /// How another program quantized the folder, in a few words.
    pub fn foreign(&self) -> Option<String> {
        let gguf = || self.has_blocks().then(|| "gguf".to_owned());
        self.foreign.as_ref().map(ForeignScheme::described).or_else(gguf)
    }

    /// Whether the weights of a linear are packed by another program.
    pub fn is_packed(&self, name: &str) -> bool {
        self.find(&format!("{name}.weight"))
            .is_some_and(Tensor::is_packed)
    }

    /// What config.json says of it, or for linears of older folders the file beside it.
    fn foreign_scheme(&self) -> Result<Option<(PathBuf, ForeignScheme)>, WeightsError> {
        let read = |path: PathBuf, value: &Value| match ForeignScheme::from_json(value) {
            Ok(scheme) => Ok(scheme.map(|scheme| (path, scheme))),
            Err(source) => Err(WeightsError::Foreign {
                path,
                source: Box::new(source),
            }),
        };
        let path = self.dir.join("config.json");
        // A broken config.json has been or will be refused by who needs it.
        let config = json_of(&path).ok().flatten();
        if let Some(value) = config
            .as_ref()
            .and_then(Value::as_object)
            .and_then(ForeignScheme::value_in)
        {
            return read(path, value);
        }
        if !self.tensors.keys().any(|name| name.ends_with(".qweight")) {
            return Ok(None);
        }
        for file in FOREIGN_CONFIGS {
            let path = self.dir.join(file);
            if let Some(value) = json_of(&path)? {
                return read(path, &value);
            }
        }
        Ok(None)
    }

    /// Takes the tensors of a linear out of the table, checks them and puts the floats that they mean in their place.
    fn gather(&mut self, linear: &str) -> Result<(), WeightsError> {
        let Some(scheme) = &self.foreign else {
            return Ok(());
        };
        let named = |part: &str| format!("{linear}.{part}");
        if let Some(part) = scheme
            .parts()
            .iter()
            .find(|part| self.absent.contains_key(&named(part)))
        {
            return Err(self.missing(&named(part)));
        }
        for part in scheme.left_out_parts() {
            self.tensors.remove(&named(part));
        }
        let mut parts = BTreeMap::new();
        for part in scheme.parts() {
            if let Some(tensor) = self.tensors.remove(&named(part)) {
                parts.insert(*part, tensor);
            }
        }
        let mut tensor = Tensor {
            shard: parts.values().next().map_or(0, |part| part.shard),
            entry: TensorEntry {
                dtype: Dtype::F32,
                shape: Vec::new(),
                bytes: 0..0,
            },
            used: AtomicBool::new(false),
            parts,
            blocks: None,
            transposed: false,
        };
        let name = named("weight");
        tensor.entry.shape = self.unpacked(&name, &tensor)?.shape().to_vec();
        if self.tensors.insert(name.clone(), tensor).is_some() {
            return Err(WeightsError::Index {
                path: self.dir.clone(),
                problem: format!(
                    "tensor `{name}` is there both packed and in floats: which one counts is not known"
                ),
            });
        }
        Ok(())
    }

    /// The checked tensors of a packed linear's weight.
    fn unpacked<'a>(&'a self, name: &str, tensor: &'a Tensor) -> Result<PackedLinear<'a>, WeightsError> {
        let parts = tensor.parts.iter().map(|(&name, tensor)| {
            let part = Part {
                dtype: tensor.entry.dtype,
                shape: &tensor.entry.shape,
                bytes: self.tensor_bytes(tensor),
            };
            (name, part)
        });
        let parts: Parts<'_> = parts.collect();
        let name = self.stored_name(name);
        let linear = name.strip_suffix(".weight").unwrap_or(name);
        // Parts exist only where there is a scheme.
        let scheme = self.foreign.as_ref().ok_or_else(|| self.missing(name))?;
        let unpacked = scheme.unpack(linear, &parts);
        unpacked.map_err(|source| self.broken((name, tensor), source))
    }

    /// Rows of a packed tensor as floats, one after the other in `out`.
    pub(super) fn unpack_rows(
        &self,
        (name, tensor): (&str, &Tensor),
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        if let Some(blocks) = tensor.blocks {
            blocks.read_rows(self.tensor_bytes(tensor), rows, out);
            return Ok(());
        }
        let linear = self.unpacked(name, tensor)?;
        let unpacked = linear.rows(rows, out);
        unpacked.map_err(|source| self.broken((name, tensor), source))
    }

    /// Row i of a packed tensor [rows.len(), columns] as floats in row `rows[i]` of `out`.
    pub(super) fn scatter_unpacked(
        &self,
        (name, tensor): (&str, &Tensor),
        columns: usize,
        rows: &[usize],
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let at_once = (UNPACKED / columns.max(1)).max(1);
        let mut values = self.room(name, at_once * columns)?;
        values.resize(at_once * columns, 0.0);
        for (piece, places) in rows.chunks(at_once).enumerate() {
            let first = piece * at_once;
            let values = &mut values[..places.len() * columns];
            self.unpack_rows((name, tensor), first..first + places.len(), values)?;
            self.check_finite((name, tensor), first * columns, values, |v| *v)?;
            for (row, values) in places.iter().zip(values.chunks_exact(columns)) {
                out[row * columns..(row + 1) * columns].copy_from_slice(values);
            }
        }
        Ok(())
    }

    fn broken(&self, (name, tensor): (&str, &Tensor), source: ForeignError) -> WeightsError {
        WeightsError::Packed {
            path: self.path(tensor),
            name: name.strip_suffix(".weight").unwrap_or(name).to_owned(),
            method: self.foreign().unwrap_or_default(),
            source: Box::new(source),
        }
    }

    /// A model is asked for under full names, and patterns are meant for those that the folder has.
    fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        let bare = LEADING.iter().filter_map(|leading| name.strip_prefix(leading));
        let mut names = std::iter::once(name).chain(bare);
        names
            .find(|name| self.tensors.contains_key(*name))
            .unwrap_or(name)
    }

    fn notice_of_packed(&self, path: &Path, (count, described): (usize, &str)) -> String {
        let left_out = self
            .foreign
            .as_ref()
            .map(ForeignScheme::left_out)
            .unwrap_or_default();
        let left_out = match left_out.is_empty() {
            true => String::new(),
            false => format!("; the quantization of {left_out} that it asks for is left out"),
        };
        format!(
            "{}: the model was quantized before by {described}: {count} linears are read as floats, and quantizing them again adds to \
             the error of the first time{left_out}",
            path.display()
        )
    }
}

/// A file that holds JSON, if it is there.
fn json_of(path: &Path) -> Result<Option<Value>, WeightsError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::io("read", path)(error).into()),
    };
    let text = text_of(path, bytes)?;
    let value = serde_json::from_str(&text).map_err(|error| WeightsError::Index {
        path: path.to_path_buf(),
        problem: format!("it says how the linears were quantized, and is no JSON: {error}"),
    })?;
    Ok(Some(value))
}
