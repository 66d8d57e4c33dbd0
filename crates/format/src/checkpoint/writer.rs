//! Writing: tensors announced beforehand, then streamed one at a time into one or several safetensors files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::table::HEADER_LEN_BYTES;

/// Largest file of a checkpoint; more becomes shards, as Hugging Face does.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// A tensor announced to the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of the tensor.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] when the size overflows.
    pub fn num_bytes(&self) -> Result<usize, CheckpointError> {
        let elements = self.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
        elements
            .and_then(|n| n.checked_mul(self.dtype.bitsize()))
            .map(|bits| bits / 8)
            .ok_or_else(|| tensor_error(&self.name, format!("shape {:?} overflows", self.shape)))
    }
}

/// Announced tensors on their way into files of a folder; they may come in any order.
#[derive(Debug)]
pub(crate) struct TensorsWriter {
    shards: Vec<Shard>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    start: u64,
    len: usize,
    written: bool,
}

impl TensorsWriter {
    /// Makes the files, with their headers, for all of `specs`; shards follow the order of `specs`.
    pub fn create(dir: &Path, specs: Vec<TensorSpec>, shard_bytes: u64) -> Result<Self, CheckpointError> {
        check_names(&specs)?;
        let groups = shard_groups(specs, shard_bytes)?;
        let mut writer = Self {
            shards: Vec::new(),
            places: BTreeMap::new(),
        };
        let num_shards = groups.len();
        for (shard, group) in groups.into_iter().enumerate() {
            writer.start_shard(dir.join(shard_name(shard, num_shards)), group)?;
        }
        Ok(writer)
    }

    fn start_shard(&mut self, path: PathBuf, mut specs: Vec<TensorSpec>) -> Result<(), CheckpointError> {
        // The widest types first keep every tensor aligned to its elements.
        specs.sort_by(|a, b| (b.dtype.bitsize(), &a.name).cmp(&(a.dtype.bitsize(), &b.name)));
        let (header, infos) = header(&specs)?;
        let data_start = (HEADER_LEN_BYTES + header.len()) as u64;
        for (name, info) in infos {
            let (start, end) = info.data_offsets;
            let place = Place {
                shard: self.shards.len(),
                start: data_start + start as u64,
                len: end - start,
                written: start == end,
            };
            self.places.insert(name, place);
        }
        let mut file = File::create_new(&path).map_err(CheckpointError::io("create", &path))?;
        let len = (header.len() as u64).to_le_bytes();
        file.write_all(&len)
            .and_then(|()| file.write_all(&header))
            .map_err(CheckpointError::io("write", &path))?;
        self.shards.push(Shard { path, file });
        Ok(())
    }

    /// Writes the bytes of one tensor at its place.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let Some(place) = self.places.get_mut(name) else {
            return Err(tensor_error(name, "was not announced".into()));
        };
        if bytes.len() != place.len {
            let problem = format!("announced with {} bytes, came with {}", place.len, bytes.len());
            return Err(tensor_error(name, problem));
        }
        if place.written && place.len > 0 {
            return Err(tensor_error(name, "written twice".into()));
        }
        let Shard { path, file } = &mut self.shards[place.shard];
        file.seek(SeekFrom::Start(place.start))
            .and_then(|_| file.write_all(bytes))
            .map_err(CheckpointError::io("write", path))?;
        place.written = true;
        Ok(())
    }

    /// Checks that every tensor came, syncs the files and returns the index of a sharded checkpoint.
    pub fn finish(self) -> Result<Option<Vec<u8>>, CheckpointError> {
        if let Some((name, _)) = self.places.iter().find(|(_, place)| !place.written) {
            return Err(tensor_error(name, "announced but never written".into()));
        }
        for shard in &self.shards {
            shard
                .file
                .sync_all()
                .map_err(CheckpointError::io("finish writing", &shard.path))?;
        }
        Ok((self.shards.len() > 1).then(|| self.index()))
    }

    fn index(&self) -> Vec<u8> {
        let total: u64 = self.places.values().map(|place| place.len as u64).sum();
        let file_name = |shard: usize| self.shards[shard].path.file_name().unwrap_or_default();
        let map = self
            .places
            .iter()
            .map(|(name, place)| (name.clone(), file_name(place.shard).to_string_lossy().into()))
            .collect::<serde_json::Map<_, _>>();
        let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
        format!("{index:#}\n").into_bytes()
    }
}

fn check_names(specs: &[TensorSpec]) -> Result<(), CheckpointError> {
    let mut seen = BTreeSet::new();
    match specs.iter().find(|spec| !seen.insert(&spec.name)) {
        None => Ok(()),
        Some(spec) => Err(tensor_error(&spec.name, "announced twice".into())),
    }
}

/// Cuts `specs` into runs of at most `shard_bytes` (a single larger tensor makes a run of its own).
fn shard_groups(specs: Vec<TensorSpec>, shard_bytes: u64) -> Result<Vec<Vec<TensorSpec>>, CheckpointError> {
    let mut groups = vec![Vec::new()];
    let mut size = 0;
    for spec in specs {
        let bytes = spec.num_bytes()? as u64;
        if size > 0 && size + bytes > shard_bytes {
            groups.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(group) = groups.last_mut() {
            group.push(spec);
        }
    }
    Ok(groups)
}

fn shard_name(shard: usize, num_shards: usize) -> String {
    if num_shards == 1 {
        "model.safetensors".into()
    } else {
        format!("model-{:05}-of-{num_shards:05}.safetensors", shard + 1)
    }
}

type Infos = Vec<(String, TensorInfo)>;

/// The JSON header, padded so that the data starts at a multiple of 8, and every tensor's place after it.
fn header(specs: &[TensorSpec]) -> Result<(Vec<u8>, Infos), CheckpointError> {
    let mut end = 0;
    let mut infos = Infos::new();
    for spec in specs {
        let start = end;
        end += spec.num_bytes()?;
        let info = TensorInfo {
            dtype: spec.dtype,
            shape: spec.shape.clone(),
            data_offsets: (start, end),
        };
        infos.push((spec.name.clone(), info));
    }
    let format = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    let text = Metadata::new(Some(format), infos.clone())
        .map_err(|e| e.to_string())
        .and_then(|metadata| serde_json::to_vec(&metadata).map_err(|e| e.to_string()));
    let mut header = text.map_err(|problem| tensor_error("(header)", problem))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok((header, infos))
}

pub(crate) fn tensor_error(name: &str, problem: String) -> CheckpointError {
    CheckpointError::Tensor {
        name: name.into(),
        problem,
    }
}
