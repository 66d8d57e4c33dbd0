//! Reading config.json and generation_config.json.

use std::path::Path;

use serde_json::{Map, Value};

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
        let mut config = read_file(&dir.join("config.json"), Self::from_json)?;
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
        }
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

fn parse_object(text: &str) -> Result<Map<String, Value>, ConfigError> {
    serde_json::from_str(text).map_err(|error| ConfigError::Json(error.to_string()))
}

fn read_file<T>(path: &Path, read: impl FnOnce(&str) -> Result<T, ConfigError>) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    read(&text).map_err(|problem| ConfigError::InFile {
        path: path.to_path_buf(),
        problem: Box::new(problem),
    })
}
