//! Reading config.json and generation_config.json.

use std::io::ErrorKind;
use std::path::Path;

use dualgrain_format::text::{notice_of_mark, text_of};
use serde_json::{Map, Value};

use super::super::folder_hint::folder_hint;
use super::architecture::ModelConfig;
use super::error::ConfigError;
use super::families;
use super::fields::Fields;

impl ModelConfig {
    /// Reads `dir/config.json` and, for end tokens, `dir/generation_config.json` if there.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::read(&dir.join("config.json"))?;
        let generation = dir.join("generation_config.json");
        if generation.exists() {
            let tokens = read_file(&generation, |text| {
                Fields(&parse_object(text)?).tokens("eos_token_id")
            })?;
            let new = tokens
                .into_iter()
                .filter(|token| !config.eos_tokens.contains(token))
                .collect::<Vec<_>>();
            config.eos_tokens.extend(new);
            config.notices.extend(notice_of_mark(&generation));
        }
        for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            config.notices.extend(notice_of_mark(&dir.join(file)));
        }
        Ok(config)
    }

    /// Reads a config.json by whatever name.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut config = read_file(path, Self::from_json)?;
        config.notices.extend(notice_of_mark(path));
        Ok(config)
    }

    /// Reads the text of a config.json.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        families::read(&parse_object(text)?)
    }
}

pub(super) fn parse_object(text: &str) -> Result<Map<String, Value>, ConfigError> {
    serde_json::from_str(text).map_err(|error| ConfigError::Json(error.to_string()))
}

pub(super) fn read_file<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_path_buf(),
        hint: match source.kind() {
            ErrorKind::NotFound => folder_hint(path.parent().unwrap_or(path)),
            _ => String::new(),
        },
        source,
    })?;
    let text = text_of(path, bytes)?;
    read(&text).map_err(|problem| ConfigError::InFile {
        path: path.to_path_buf(),
        problem: Box::new(problem),
    })
}
