//! The tensors of a GGUF file, under the names that they have in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use dualgrain_format::checkpoint::{CheckpointError, Dtype, TensorEntry};
use dualgrain_format::gguf::{GgufEntry, GgufFile, GgufKind, folder_name};
use serde_json::Value;

use super::super::gguf::names::{GGUF_POINTER, ROPE_FACTORS, has_pairs};
use super::blocks::Blocks;
use super::error::WeightsError;
use super::mapping::MappedFile;
use super::tensors::{Shard, Tensor, Weights};

impl Weights {
    /// Maps the file that the folder names.
    pub(super) fn open_gguf(&mut self) -> Result<(), WeightsError> {
        let path = self.gguf_path()?;
        let file = MappedFile::open(&path).map_err(CheckpointError::io("open", &path))?;
        let table = GgufFile::parse(file.bytes());
        let table = table.map_err(|source| WeightsError::Gguf {
            path: path.clone(),
            source: Box::new(source),
        })?;
        let architecture = table.metadata.get("general.architecture").and_then(Value::as_str);
        let architecture = architecture.unwrap_or_default().to_owned();
        let head = head_rows(&table, &architecture);
        let mut codes = BTreeMap::new();
        for (name, entry) in table.tensors {
            if name == ROPE_FACTORS {
                continue;
            }
            let head = head.filter(|_| has_pairs(&architecture, &name));
            *codes.entry(format!("{:?}", entry.kind)).or_insert(0) += 1;
            let wrong = |problem| WeightsError::Index {
                path: path.clone(),
                problem,
            };
            let tensor = tensor(&name, entry, head).map_err(wrong)?;
            let folder_name = folder_name(&name).unwrap_or_else(|| name.clone());
            if self.tensors.insert(folder_name.clone(), tensor).is_some() {
                return Err(wrong(format!(
                    "tensor `{name}` is there twice (as `{folder_name}`): which one counts is not known"
                )));
            }
        }
        self.shards.push(Shard {
            path: path.clone(),
            file,
        });
        if self.has_blocks() {
            self.notices.push(notice_of_blocks(&path, &codes));
        }
        Ok(())
    }

    /// Whether any tensor is stored in blocks of codes.
    pub(super) fn has_blocks(&self) -> bool {
        let is_coded = |tensor: &Tensor| tensor.blocks.is_some_and(|blocks| blocks.kind.block().0 > 1);
        self.tensors.values().any(is_coded)
    }

    /// What the folder says which file it stands for.
    fn gguf_path(&self) -> Result<PathBuf, WeightsError> {
        let path = self.dir.join(GGUF_POINTER);
        let bytes = std::fs::read(&path).map_err(CheckpointError::io("read", &path))?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match value["file"].as_str() {
            Some(file) => Ok(PathBuf::from(file)),
            None => Err(WeightsError::Index {
                path,
                problem: "it does not say which GGUF file the folder stands for".to_owned(),
            }),
        }
    }
}

/// A sentence on how many tensors of each kind a file has.
fn notice_of_blocks(path: &Path, codes: &BTreeMap<String, usize>) -> String {
    let kinds = codes.iter().map(|(kind, count)| format!("{count} {kind}"));
    format!(
        "{}: its tensors ({}) are read as floats; what was quantized before gets a second error where it is quantized again",
        path.display(),
        kinds.collect::<Vec<_>>().join(", ")
    )
}

/// Rows of a head that is rotated.
fn head_rows(table: &GgufFile, architecture: &str) -> Option<usize> {
    let number = |name: &str| {
        let value = table.metadata.get(&format!("{architecture}.{name}"))?;
        usize::try_from(value.as_u64()?).ok()
    };
    let even = || number("embedding_length")?.checked_div(number("attention.head_count")?);
    let head = number("attention.key_length").or_else(even)?;
    (head > 0 && head.is_multiple_of(2)).then_some(head)
}

/// A tensor of the file; in words why it is not read.
fn tensor(name: &str, entry: GgufEntry, head: Option<usize>) -> Result<Tensor, String> {
    let dtype = match entry.kind {
        GgufKind::F16 => Dtype::F16,
        GgufKind::Bf16 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let head = head.filter(|&head| entry.shape.first().is_some_and(|rows| rows.is_multiple_of(head)));
    let is_plain = entry.kind.block().0 == 1 && head.is_none();
    let row = entry.shape.iter().skip(1).product();
    // Rows of whole blocks are proved for the innermost size, and a vector's rows are single numbers.
    let row_bytes = entry.kind.row_bytes(row).ok_or_else(|| {
        format!(
            "tensor `{name}` of shape {:?} is stored in blocks ({:?}), expected F32, F16 or BF16 for a tensor of one dimension, as \
             llama.cpp keeps it: convert the model again",
            entry.shape, entry.kind
        )
    })?;
    let blocks = (!is_plain).then_some(Blocks {
        kind: entry.kind,
        row,
        row_bytes,
        head,
    });
    Ok(Tensor {
        shard: 0,
        entry: TensorEntry {
            dtype: if is_plain { dtype } else { Dtype::F32 },
            shape: entry.shape,
            bytes: entry.bytes,
        },
        used: AtomicBool::new(false),
        parts: BTreeMap::new(),
        blocks,
        transposed: false,
    })
}
