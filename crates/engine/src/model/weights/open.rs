//! Finding and mapping the files of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::atomic::AtomicBool;

use dualgrain_format::checkpoint::{CheckpointError, INDEX, SINGLE, TensorTable, part_of_set};
use dualgrain_format::text::{notice_of_mark, text_of};
use serde_json::Value;

use super::super::folder_hint::folder_hint;
use super::super::gguf::names::GGUF_POINTER;
use super::error::WeightsError;
use super::mapping::MappedFile;
use super::names::unwrapped;
use super::tensors::{InFloats, Shard, Tensor, Weights};

/// The shards that an index names. What it lists and is not there is found missing when a model asks for it: an index may list more
/// than a model needs.
fn open_shards(weights: &mut Weights) -> Result<(), WeightsError> {
    let path = weights.dir.join(INDEX);
    let map = read_index(&path)?;
    for shard in map.values().collect::<BTreeSet<_>>() {
        if !is_plain_name(shard) {
            return Err(WeightsError::Index {
                path,
                problem: format!("`{shard}` is not the name of a file in this folder"),
            });
        }
        if weights.dir.join(shard).exists() {
            weights.add_shard(shard)?;
        }
    }
    let absent = map.iter().map(|(name, shard)| (unwrapped(name), shard.clone()));
    weights.absent = absent
        .filter(|(name, _)| !weights.tensors.contains_key(name))
        .collect();
    weights.notices.extend(notice_of_mark(&path));
    if let Some((name, shard)) = weights.absent.first_key_value() {
        let is_there = weights.dir.join(shard).exists();
        let what = if is_there {
            "does not hold it"
        } else {
            "is not there"
        };
        weights.notices.push(format!(
            "{}: lists {} tensors that are not there, like `{name}` in `{shard}`, which {what}",
            path.display(),
            weights.absent.len()
        ));
    }
    Ok(())
}

/// Tensor name to shard file name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let wrong = |problem: String| WeightsError::Index {
        path: path.to_path_buf(),
        problem,
    };
    let bytes = std::fs::read(path).map_err(CheckpointError::io("read", path))?;
    let text = text_of(path, bytes)?;
    let index: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let map = index.get("weight_map").cloned().unwrap_or_default();
    serde_json::from_value(map)
        .map_err(|_| wrong("`weight_map` is not an object from tensor to file names".into()))
}

impl Weights {
    /// Maps `dir/model.safetensors`, or the shards that `dir/model.safetensors.index.json` names, or a whole set of shards without
    /// an index.
    ///
    /// # Errors
    /// Files missing, truncated or malformed; an index that is no index; linears that another program packed in a way that is not read.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let mut weights = Self {
            dir: dir.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            absent: BTreeMap::new(),
            notices: Vec::new(),
            in_floats: InFloats::default(),
            foreign: None,
        };
        if dir.join(GGUF_POINTER).is_file() {
            weights.open_gguf()?;
            return Ok(weights);
        }
        if dir.join(SINGLE).exists() {
            weights.add_shard(SINGLE)?;
        } else if dir.join(INDEX).exists() {
            open_shards(&mut weights)?;
        } else {
            weights.open_set()?;
        }
        weights.split_stacks()?;
        weights.gather_packed()?;
        Ok(weights)
    }

    /// All of `NAME-00001-of-00003.safetensors` and its kin, which need no index to be understood.
    fn open_set(&mut self) -> Result<(), WeightsError> {
        let files = safetensors_files(&self.dir);
        let mut sets: BTreeMap<(&str, usize), BTreeSet<usize>> = BTreeMap::new();
        for (name, part, parts) in files.iter().filter_map(|file| part_of_set(file)) {
            sets.entry((name, parts)).or_default().insert(part);
        }
        // Other programs' spellings of the same model, and leftovers of a cut download, do not stand before a whole set.
        let rank = |((name, parts), found): &((&str, usize), BTreeSet<usize>)| {
            let is_whole = found.len() == *parts && found.last() == Some(parts);
            (
                *name == "consolidated" || *name == "adapter_model",
                !is_whole,
                *name != "model",
            )
        };
        let Some(((name, parts), found)) = sets.into_iter().min_by_key(rank) else {
            return Err(no_weights(&self.dir, &files));
        };
        if let Some(part) = (1..=parts).find(|part| !found.contains(part)) {
            return Err(WeightsError::Index {
                path: self.dir.clone(),
                problem: format!(
                    "of the {parts} files of `{name}` there are {}; number {part} is missing (was a download cut short?)",
                    found.len()
                ),
            });
        }
        let of_set =
            |file: &&String| part_of_set(file).is_some_and(|(of, _, all)| (of, all) == (name, parts));
        for file in files.iter().filter(of_set) {
            self.add_shard(file)?;
        }
        Ok(())
    }

    /// Maps one file and takes over its tensors, under the names that they have without wrappers.
    fn add_shard(&mut self, file_name: &str) -> Result<(), WeightsError> {
        let path = self.dir.join(file_name);
        let file = MappedFile::open(&path).map_err(CheckpointError::io("open", &path))?;
        let table = TensorTable::parse(&path, file.bytes())?;
        let shard = self.shards.len();
        for (stored, entry) in table.tensors {
            let name = unwrapped(&stored);
            let tensor = Tensor {
                shard,
                entry,
                used: AtomicBool::new(false),
                parts: BTreeMap::new(),
                blocks: None,
                transposed: false,
            };
            let twice = self.tensors.insert(name.clone(), tensor);
            if twice.is_some() {
                let problem =
                    format!("tensor `{stored}` is there twice (as `{name}`): which one counts is not known");
                return Err(WeightsError::Index { path, problem });
            }
        }
        self.shards.push(Shard { path, file });
        Ok(())
    }
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

/// Names of the safetensors files in a folder, in order.
fn safetensors_files(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".safetensors")).collect()
}

/// What a folder without weights holds in their place.
fn no_weights(dir: &Path, files: &BTreeSet<String>) -> WeightsError {
    let has = |name: &str| dir.join(name).exists();
    let own = |file: &&String| !file.starts_with("consolidated") && !file.starts_with("adapter");
    let hint = if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        "; pytorch_model.bin must be converted to safetensors first".to_owned()
    } else if let Some(file) = files.iter().find(own) {
        format!("; rename `{file}` to {SINGLE} if it holds the whole model")
    } else if dir.is_dir() {
        folder_hint(dir)
    } else {
        format!(" (there is no such folder){}", folder_hint(dir))
    };
    WeightsError::NoWeights {
        dir: dir.to_path_buf(),
        hint,
    }
}
