//! The folder that stands for a GGUF file: some small files, and which file has the tensors.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use dualgrain_format::gguf::GgufFile;
use serde_json::{Value, json};

use super::super::weights::MappedFile;
use super::config::config;
use super::error::GgufModelError;
use super::names::{GGUF_POINTER, ROPE_FACTORS};
use super::tokenizer::tokenizer;

/// Whether a path is a GGUF file, by its first bytes.
pub fn is_gguf_file(path: &Path) -> bool {
    let mut first = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
    path.is_file() && read.is_ok() && &first == b"GGUF"
}

/// The folder that stands for a GGUF file, in the user's caches. It is made once for each state of the file.
///
/// # Errors
/// A file that is damaged, a model or a tokenizer in it that is not read, by name; a folder that can not be written.
pub fn gguf_folder(path: &Path) -> Result<PathBuf, GgufModelError> {
    match cache() {
        Some(cache) => gguf_folder_in(&cache, path),
        None => Err(GgufModelError::NoCache {
            path: path.to_path_buf(),
        }),
    }
}

/// As [`gguf_folder`], with the folder that holds all of them.
///
/// # Errors
/// As [`gguf_folder`].
pub fn gguf_folder_in(cache: &Path, path: &Path) -> Result<PathBuf, GgufModelError> {
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| GgufModelError::Io { action, path, source }
    };
    let path = &path.canonicalize().map_err(io("find", path))?;
    let metadata = path.metadata().map_err(io("look at", path))?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let state = format!(
        "{} {} {modified:?} {}",
        path.display(),
        metadata.len(),
        env!("CARGO_PKG_VERSION")
    );
    let name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let folder = cache.join(format!("{name}-{:016x}", fnv1a(state.as_bytes())));
    if folder.join(GGUF_POINTER).is_file() {
        return Ok(folder);
    }
    let files = files(path)?;
    // Whole or not at all: it is written aside and renamed.
    let aside = cache.join(format!(".partial-{}-{name}", std::process::id()));
    fs::create_dir_all(&aside).map_err(io("make", &aside))?;
    for (name, value) in files {
        let file = aside.join(name);
        fs::write(&file, value.to_string()).map_err(io("write", &file))?;
    }
    match fs::rename(&aside, &folder) {
        Ok(()) => Ok(folder),
        // Another process made it meanwhile.
        Err(_) if folder.join(GGUF_POINTER).is_file() => {
            let _ = fs::remove_dir_all(&aside);
            Ok(folder)
        }
        Err(source) => Err(io("make", &folder)(source)),
    }
}

/// The files of the folder.
fn files(path: &Path) -> Result<[(&'static str, Value); 4], GgufModelError> {
    let model = |problem| GgufModelError::Model {
        path: path.to_path_buf(),
        problem,
    };
    let mapped = MappedFile::open(path).map_err(|source| GgufModelError::Io {
        action: "open",
        path: path.to_path_buf(),
        source,
    })?;
    let file = GgufFile::parse(mapped.bytes()).map_err(|source| GgufModelError::File {
        path: path.to_path_buf(),
        source,
    })?;
    let factors = rope_factors(&file, mapped.bytes()).map_err(model)?;
    let config = config(&file, factors).map_err(model)?;
    let [tokenizer, names] = tokenizer(&file.metadata).map_err(model)?;
    Ok([
        ("config.json", Value::Object(config)),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", names),
        (GGUF_POINTER, json!({"file": path})),
    ])
}

/// The divisors of the frequencies, if the file has them; in words why they are not read.
fn rope_factors(file: &GgufFile, bytes: &[u8]) -> Result<Option<Vec<f32>>, String> {
    let Some(tensor) = file.tensors.get(ROPE_FACTORS) else {
        return Ok(None);
    };
    if tensor.kind.block().0 > 1 {
        return Err(format!(
            "tensor `{ROPE_FACTORS}` is stored in blocks ({:?}), expected F32, F16 or BF16: convert the model again",
            tensor.kind
        ));
    }
    let mut factors = vec![0.0; tensor.shape.iter().product()];
    // The table was checked against these very bytes.
    tensor.kind.read(&bytes[tensor.bytes.clone()], &mut factors);
    Ok(Some(factors))
}

/// Where such folders are: `$XDG_CACHE_HOME/dualgrain/gguf`, else `~/.cache/dualgrain/gguf`.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from).filter(|path| path.is_absolute())
    };
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    base.map(|base| base.join("dualgrain").join("gguf"))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
