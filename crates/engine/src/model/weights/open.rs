//! Finding and mapping the files of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::atomic::AtomicBool;

use dualgrain_format::checkpoint::{CheckpointError, TensorTable};
use serde_json::Value;

use super::error::WeightsError;
use super::mapping::MappedFile;
use super::tensors::{Shard, Tensor, Weights};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn open_shards(weights: &mut Weights) -> Result<(), WeightsError> {
    let path = weights.dir.join(INDEX);
    let wrong = |problem: String| WeightsError::Index {
        path: path.clone(),
        problem,
    };
    let map = read_index(&path)?;
    for shard in map.values().collect::<BTreeSet<_>>() {
        if !is_plain_name(shard) {
            return Err(wrong(format!(
                "`{shard}` is not the name of a file in this folder"
            )));
        }
        if !weights.dir.join(shard).exists() {
            return Err(wrong(format!("names the shard `{shard}`, which is not there")));
        }
        for name in weights.add_shard(shard)? {
            if map.get(&name) != Some(shard) {
                return Err(wrong(format!("does not list tensor `{name}` of shard `{shard}`")));
            }
        }
    }
    match map.iter().find(|(name, _)| !weights.tensors.contains_key(*name)) {
        None => Ok(()),
        Some((name, shard)) => Err(wrong(format!("lists tensor `{name}`, which is not in `{shard}`"))),
    }
}

/// Tensor name to shard file name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let wrong = |problem: String| WeightsError::Index {
        path: path.to_path_buf(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(CheckpointError::io("read", path))?;
    let index: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let map = index.get("weight_map").cloned().unwrap_or_default();
    serde_json::from_value(map)
        .map_err(|_| wrong("`weight_map` is not an object from tensor to file names".into()))
}

impl Weights {
    /// Maps `dir/model.safetensors`, or the shards that `dir/model.safetensors.index.json` names.
    ///
    /// # Errors
    /// Files missing, truncated or malformed; an index that does not fit the shards.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let mut weights = Self {
            dir: dir.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        if dir.join(SINGLE).exists() {
            weights.add_shard(SINGLE)?;
        } else if dir.join(INDEX).exists() {
            open_shards(&mut weights)?;
        } else {
            return Err(no_weights(dir));
        }
        Ok(weights)
    }

    /// Maps one file and takes over its tensors; returns their names.
    fn add_shard(&mut self, file_name: &str) -> Result<Vec<String>, WeightsError> {
        let path = self.dir.join(file_name);
        let file = MappedFile::open(&path).map_err(CheckpointError::io("open", &path))?;
        let table = TensorTable::parse(&path, file.bytes())?;
        let shard = self.shards.len();
        self.shards.push(Shard { path, file });
        let names = table.tensors.keys().cloned().collect();
        self.tensors
            .extend(table.tensors.into_iter().map(|(name, entry)| {
                let used = AtomicBool::new(false);
                (name, Tensor { shard, entry, used })
            }));
        Ok(names)
    }
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

fn no_weights(dir: &Path) -> WeightsError {
    let has_bin = dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists();
    let hint = match (dir.is_dir(), has_bin) {
        (false, _) => " (there is no such folder)",
        (true, true) => "; pytorch_model.bin must be converted to safetensors first",
        (true, false) => "",
    };
    WeightsError::NoWeights {
        dir: dir.to_path_buf(),
        hint,
    }
}
