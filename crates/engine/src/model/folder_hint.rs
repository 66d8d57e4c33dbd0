//! What people name in the place of a model folder, and where the model is then.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What to do about a path that holds no model to load, as the end of a sentence; nothing where there is no advice.
pub fn folder_hint(dir: &Path) -> String {
    let hint = match dir.symlink_metadata() {
        Err(_) => hint_for_name(dir),
        Ok(_) if dir.is_dir() => hint_for_folder(dir),
        Ok(_) if is_gguf(dir) => Some(OF_GGUF.to_owned()),
        Ok(_) => Some("this is a file: name the folder that holds it".to_owned()),
    };
    hint.map_or_else(String::new, |hint| format!("; {hint}"))
}

const OF_GGUF: &str = "this is a GGUF file by its name: commands take one in the place of a folder if it begins as such a file \
                       does (was a download cut short?)";

/// ORG/NAME is how the hub calls a model.
fn hint_for_name(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let (org, name) = text.split_once('/')?;
    let is_word = |word: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !word.is_empty() && !word.starts_with('.') && word.chars().all(is_plain)
    };
    if !is_word(org) || !is_word(name) {
        return None;
    }
    let cached = cache()?.join(format!("models--{org}--{name}"));
    Some(match snapshot(&cached).filter(|dir| has_weights(dir)) {
        Some(snapshot) => format!("the hub's cache has it: {}", snapshot.display()),
        None => {
            format!("if this is a name on the Hugging Face hub, download it first: `dualgrain pull {text}`")
        }
    })
}

/// Where the hub's programs keep what they download.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let caches = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let home = || Some(caches()?.join("huggingface"));
    set("HF_HUB_CACHE").or_else(|| Some(set("HF_HOME").or_else(home)?.join("hub")))
}

fn hint_for_folder(dir: &Path) -> Option<String> {
    if let Some(snapshot) = snapshot(dir) {
        return Some(format!(
            "this is a folder of the hub's cache: the model is in {}",
            snapshot.display()
        ));
    }
    let names = names_in(dir);
    let is_there = |name: &str| names.iter().any(|other| other == OsStr::new(name));
    if is_there("adapter_config.json") || is_there("adapter_model.safetensors") {
        return Some(
            "this is an adapter (LoRA): merge it into its model first, with peft's merge_and_unload and save_pretrained"
                .to_owned(),
        );
    }
    if let Some(model) = names
        .iter()
        .find(|name| name.to_string_lossy().starts_with("models--"))
    {
        let snapshot = snapshot(&dir.join(model));
        let model = snapshot.unwrap_or_else(|| dir.join(model));
        return Some(format!(
            "this is the hub's cache, which holds many: name one, like {}",
            model.display()
        ));
    }
    if names.iter().any(|name| is_gguf(Path::new(name))) {
        return Some("it holds a GGUF file: name that file itself in the place of a folder".to_owned());
    }
    let inner = names
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.join("config.json").is_file())?;
    Some(format!("did you mean {}?", inner.display()))
}

/// The newest snapshot in a folder `models--ORG--NAME` of the hub's cache.
fn snapshot(dir: &Path) -> Option<PathBuf> {
    let snapshots = std::fs::read_dir(dir.join("snapshots")).ok()?.flatten();
    let dirs = snapshots.map(|entry| entry.path()).filter(|path| path.is_dir());
    dirs.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

/// Whether weights lie in a folder: a snapshot without them was cut, or taken for a plan.
fn has_weights(dir: &Path) -> bool {
    let mut names = names_in(dir).into_iter();
    names.any(|name| {
        Path::new(&name)
            .extension()
            .is_some_and(|end| end == "safetensors")
    })
}

/// Names in a folder, in order.
fn names_in(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    names
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_stands_in_the_place_of_a_model_folder_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let hint = |name: &str| folder_hint(&dir.path().join(name));
        let put = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        put("a/x.gguf");
        assert!(hint("a").contains("holds a GGUF file") && hint("a/x.gguf").contains("this is a GGUF file"));
        put("b/adapter_config.json");
        assert!(hint("b").contains("merge_and_unload"));
        put("hub/models--org--name/snapshots/0123/config.json");
        assert!(
            hint("hub").contains("snapshots/0123")
                && hint("hub/models--org--name").contains("snapshots/0123")
        );
        put("c/inner/config.json");
        assert!(
            hint("c").contains("did you mean") && hint("c/inner/config.json").contains("name the folder")
        );
        put("d/other");
        assert_eq!(hint("d"), "");
        assert!(
            folder_hint(Path::new("meta-llama/Llama-3.2-1B"))
                .contains("dualgrain pull meta-llama/Llama-3.2-1B")
        );
        assert_eq!(folder_hint(Path::new("a/b/c")), "");
        assert_eq!(folder_hint(Path::new("../b")), "");
    }
}
