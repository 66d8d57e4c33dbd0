//! What the files of a model folder are called.

use std::fs;
use std::path::{Path, PathBuf};

/// The weights in one file.
pub const SINGLE: &str = "model.safetensors";

/// Which file has which tensor, where the weights lie in several.
pub const INDEX: &str = "model.safetensors.index.json";

/// Files besides config.json and weights that belong to a model.
pub const MODEL_FILES: [&str; 13] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
];

/// Where older folders of other programs say how they were quantized, as config.json does today: GPTQ's file and AWQ's.
pub const FOREIGN_CONFIGS: [&str; 2] = ["quantize_config.json", "quant_config.json"];

/// A folder of chat templates beside the usual one.
pub const TEMPLATES: &str = "additional_chat_templates";

/// Files of templates in a folder, in order.
pub fn templates_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut files: Vec<_> = paths
        .filter(|path| path.is_file() && path.extension().is_some_and(|end| end == "jinja"))
        .collect();
    files.sort();
    files
}

/// The name, number and count in `NAME-00001-of-00003.safetensors`.
pub fn part_of_set(file: &str) -> Option<(&str, usize, usize)> {
    let (rest, parts) = file.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (name, part) = rest.rsplit_once('-')?;
    let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
    (1..=parts).contains(&part).then_some((name, part, parts))
}
