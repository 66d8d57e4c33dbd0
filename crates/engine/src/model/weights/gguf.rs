//! The tensors of a GGUF file, under the names that they have in a folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use dualgrain_format::checkpoint::{CheckpointError, Dtype, TensorEntry};
use dualgrain_format::gguf::{GgufEntry, GgufFile, GgufKind};
use serde_json::Value;

use super::super::gguf::names::{GGUF_POINTER, ROPE_FACTORS, folder_name, has_pairs};
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
            let tensor = tensor(entry, head);
            self.tensors.insert(folder_name(&name).unwrap_or(name), tensor);
        }
        self.shards.push(Shard {
            path: path.clone(),
            file,
        });
        if self.has_blocks() {
            let kinds: Vec<_> = codes
                .iter()
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            self.notices.push(format!(
                "{}: its tensors ({}) are read as floats; what was quantized before gets a second error where it is quantized again",
                path.display(),
                kinds.join(", ")
            ));
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

fn tensor(entry: GgufEntry, head: Option<usize>) -> Tensor {
    let dtype = match entry.kind {
        GgufKind::F16 => Dtype::F16,
        GgufKind::Bf16 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let head = head.filter(|&head| entry.shape.first().is_some_and(|rows| rows.is_multiple_of(head)));
    let is_plain = entry.kind.block().0 == 1 && head.is_none();
    let row = entry.shape.iter().skip(1).product();
    let blocks = (!is_plain).then_some(Blocks {
        kind: entry.kind,
        row,
        head,
    });
    Tensor {
        shard: 0,
        entry: TensorEntry {
            dtype: if is_plain { dtype } else { Dtype::F32 },
            shape: entry.shape,
            bytes: entry.bytes,
        },
        used: AtomicBool::new(false),
        parts: BTreeMap::new(),
        blocks,
    }
}
