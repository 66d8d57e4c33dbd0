//! What a repository holds: the hub's answer, and which of it a model needs.

use std::collections::BTreeSet;

use dualgrain_format::checkpoint::{FOREIGN_CONFIGS, INDEX, MODEL_FILES, SINGLE, TEMPLATES};
use serde::Deserialize;
use serde_json::Value;

use crate::checksum::Checksum;
use crate::error::HubError;
use crate::model_name::{ModelName, is_commit};

/// How texts become tokens.
pub const TOKENIZER: &str = "tokenizer.json";
/// What every model has.
pub const CONFIG: &str = "config.json";
/// Kept for programs that read it; dualgrain does not.
const VOCABULARY: &str = "vocab.txt";

/// A state of a repository.
#[derive(Debug)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// All files.
    pub files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository; it can not leave a folder.
    pub path: String,
    /// Its length and checksum, where the listing has them.
    pub known: Option<(u64, Checksum)>,
}

#[derive(Deserialize)]
struct Told {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Reads the hub's answer on a repository.
    ///
    /// # Errors
    /// No such answer, or one with names that lead out of a folder.
    pub fn parse(bytes: &[u8], name: &ModelName) -> Result<Self, HubError> {
        let wrong = |problem: String| HubError::Listing {
            name: name.to_string(),
            problem,
        };
        let told: Told = serde_json::from_slice(bytes).map_err(|error| {
            wrong(format!(
                "expected an object with `sha` and `siblings`, got something else: {error}"
            ))
        })?;
        if !is_commit(&told.sha) {
            return Err(wrong(format!("`sha` is no commit: {:?}", told.sha)));
        }
        if let Some(hostile) = told.siblings.iter().find(|sibling| !is_path(&sibling.rfilename)) {
            return Err(wrong(format!(
                "the name {:?} could leave the folder that files go to: nothing is downloaded",
                hostile.rfilename
            )));
        }
        Ok(Self {
            commit: told.sha,
            files: told.siblings.into_iter().map(RemoteFile::from).collect(),
        })
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Files that say what the model is and how its texts are written.
    pub fn small_files(&self) -> Vec<RemoteFile> {
        let is_small = |path: &str| {
            let template = path
                .strip_prefix(TEMPLATES)
                .and_then(|name| name.strip_prefix('/'));
            [CONFIG, VOCABULARY].contains(&path)
                || MODEL_FILES.contains(&path)
                || FOREIGN_CONFIGS.contains(&path)
                || template.is_some_and(|name| !name.contains('/') && name.ends_with(".jinja"))
        };
        let wanted = self.files.iter().filter(|file| is_small(&file.path));
        wanted.cloned().collect()
    }

    /// Files with weights, of which `shards` are those that an index names.
    ///
    /// # Errors
    /// There are none, or an index names what is not there.
    pub fn weights(
        &self,
        shards: Option<&BTreeSet<String>>,
        name: &ModelName,
    ) -> Result<Vec<RemoteFile>, HubError> {
        let refused = |problem: String| HubError::NotReadable {
            name: name.to_string(),
            problem,
        };
        if let Some(single) = self.file(SINGLE) {
            return Ok(vec![single.clone()]);
        }
        let Some(shards) = shards else {
            let files = self.without_index();
            let problem = || format!("expected safetensors, got {}", self.in_their_place());
            return match files.is_empty() {
                true => Err(refused(problem())),
                false => Ok(files),
            };
        };
        let found = shards.iter().map(|shard| {
            let file = self.file(shard).cloned();
            file.ok_or_else(|| {
                refused(format!(
                    "{INDEX} names {shard:?}, which the repository does not have"
                ))
            })
        });
        found.collect()
    }

    /// Safetensors that no index names: other programs' spellings of the same weights are left where the usual one is there.
    fn without_index(&self) -> Vec<RemoteFile> {
        let all = self.files.iter().filter(|file| is_weights(&file.path));
        let (other, own): (Vec<_>, Vec<_>) = all
            .cloned()
            .partition(|file| file.path.starts_with("consolidated"));
        if own.is_empty() { other } else { own }
    }

    /// What a repository without weights holds.
    fn in_their_place(&self) -> String {
        let has = |test: &dyn Fn(&str) -> bool| self.files.iter().find(|file| test(&file.path));
        let kinds = [
            ".bin", ".gguf", ".pth", ".pt", ".onnx", ".msgpack", ".h5", ".ckpt", ".npz",
        ];
        let found = kinds.iter().filter_map(|kind| has(&|path| path.ends_with(kind)));
        let found: Vec<&str> = found.map(|file| file.path.as_str()).collect();
        if has(&|path| path == "adapter_config.json").is_some() {
            return "an adapter (LoRA), which must be merged into its model first".to_owned();
        }
        match found.is_empty() {
            true => format!("none among its {} files", self.files.len()),
            false => format!("{}, which dualgrain does not read", found.join(", ")),
        }
    }
}

impl From<Sibling> for RemoteFile {
    fn from(sibling: Sibling) -> Self {
        let (size, checksum) = match sibling.lfs {
            Some(lfs) => (lfs.size.or(sibling.size), lfs.sha256),
            None => (sibling.size, sibling.blob_id),
        };
        let checksum = checksum.as_deref().and_then(Checksum::parse);
        Self {
            path: sibling.rfilename,
            known: size.zip(checksum),
        }
    }
}

/// Weights in the folder itself, not those of an adapter.
fn is_weights(path: &str) -> bool {
    path.ends_with(".safetensors") && !path.contains('/') && !path.starts_with("adapter")
}

/// Whether a name stays in the folder that it is put in, on every system.
fn is_path(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= 1024
        && !name.contains(|letter: char| letter.is_control() || "\\:".contains(letter))
        && name.split('/').all(is_part)
}

/// The files that an index of weights names.
///
/// # Errors
/// What is wrong with it.
pub fn shards_of_index(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let index: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or("expected an object `weight_map` from tensors to files")?;
    let names = map.values().map(|file| match file.as_str() {
        Some(file) if is_path(file) && !file.contains('/') => Ok(file.to_owned()),
        _ => Err(format!("`weight_map` holds {file}: expected the name of a file")),
    });
    let names = names.collect::<Result<BTreeSet<_>, _>>()?;
    match names.is_empty() {
        true => Err("`weight_map` names no files".to_owned()),
        false => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn listing(names: &[&str]) -> Result<Listing, HubError> {
        let siblings: Vec<Value> = names
            .iter()
            .map(|name| serde_json::json!({"rfilename": name, "size": 2, "blobId": COMMIT}))
            .collect();
        let answer = serde_json::json!({"sha": COMMIT, "siblings": siblings});
        Listing::parse(answer.to_string().as_bytes(), &"a/b".parse().unwrap())
    }

    fn paths(files: &[RemoteFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    fn weights(names: &[&str], shards: Option<&[&str]>) -> Result<Vec<String>, String> {
        let shards = shards.map(|shards| shards.iter().map(|&name| name.to_owned()).collect());
        let files = listing(names)
            .unwrap()
            .weights(shards.as_ref(), &"a/b".parse().unwrap());
        let files = files.map_err(|error| error.to_string())?;
        Ok(paths(&files).into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn only_what_a_model_needs_is_taken() {
        let names = [
            "README.md",
            "LICENSE.txt",
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "pytorch_model.bin",
            "model.gguf",
            "onnx/model.onnx",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
            "additional_chat_templates/x/y.jinja",
            "logo.png",
            "onnx/config.json",
            "original/consolidated.00.pth",
        ];
        let small = listing(&names).unwrap().small_files();
        let expected = [
            "LICENSE.txt",
            "config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
        ];
        assert_eq!(paths(&small), expected);
        assert_eq!(weights(&names, None).unwrap(), ["model.safetensors"]);
    }

    #[test]
    fn shards_are_those_of_the_index_or_all_of_the_usual_spelling() {
        let names = [
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        assert_eq!(weights(&names, Some(&names[2..])).unwrap(), names[2..]);
        assert_eq!(weights(&names, None).unwrap(), names[1..]);
        assert_eq!(weights(&names[..1], None).unwrap(), names[..1]);
        let error = weights(&names, Some(&["other.safetensors"])).unwrap_err();
        assert!(error.contains("other.safetensors"), "{error}");
    }

    #[test]
    fn repository_without_safetensors_is_refused_by_what_it_has() {
        let error = weights(&["config.json", "pytorch_model.bin", "x.gguf"], None).unwrap_err();
        assert!(
            error.contains("safetensors") && error.contains("pytorch_model.bin, x.gguf"),
            "{error}"
        );
        let error = weights(&["adapter_config.json", "adapter_model.safetensors"], None).unwrap_err();
        assert!(error.contains("adapter (LoRA)"), "{error}");
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for hostile in [
            "../x",
            "/etc/passwd",
            "a/../../b",
            "a//b",
            "",
            "..",
            "C:x",
            "a\\..\\b",
            "a\0b",
            "./a",
        ] {
            let error = listing(&["config.json", hostile]).unwrap_err().to_string();
            assert!(error.contains("could leave the folder"), "{hostile}: {error}");
        }
        for answer in ["<html>", "[]", "{}", r#"{"sha": "../../x", "siblings": []}"#] {
            assert!(
                Listing::parse(answer.as_bytes(), &"a/b".parse().unwrap()).is_err(),
                "{answer}"
            );
        }
    }

    #[test]
    fn damaged_indices_are_refused() {
        let good = br#"{"weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        assert_eq!(shards_of_index(good).unwrap().len(), 2);
        for wrong in [
            "",
            "{}",
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": 1}}"#,
            r#"{"weight_map": {"a": "../x"}}"#,
        ] {
            assert!(shards_of_index(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn large_files_are_known_by_sha256_and_small_ones_by_git() {
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let answer = serde_json::json!({"sha": COMMIT, "siblings": [
            {"rfilename": "a", "size": 9, "blobId": COMMIT, "lfs": {"sha256": sha, "size": 9, "pointerSize": 5}},
            {"rfilename": "b", "size": 2, "blobId": COMMIT},
            {"rfilename": "c"},
        ]});
        let listing = Listing::parse(answer.to_string().as_bytes(), &"a/b".parse().unwrap()).unwrap();
        let known: Vec<_> = listing.files.iter().map(|file| file.known.clone()).collect();
        let of = |text| Checksum::parse(text).unwrap();
        assert_eq!(known, [Some((9, of(sha))), Some((2, of(COMMIT))), None]);
    }
}
