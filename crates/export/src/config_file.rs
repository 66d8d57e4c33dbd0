//! config.json of the exported folder: the quantized folder's, with what changed.

use std::fs;
use std::path::Path;

use dualgrain_format::checkpoint::CheckpointError;
use dualgrain_format::text::without_mark;
use serde_json::Value;

use crate::error::ExportError;

/// What says which float type a model has, in either spelling.
const TYPES: [&str; 2] = ["torch_dtype", "dtype"];

/// Reads a file of JSON in `dir`; `None` where it is not there.
///
/// # Errors
/// It can not be read, or is no JSON.
pub fn read_json(dir: &Path, name: &str) -> Result<Option<Value>, ExportError> {
    let path = dir.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
    let value = serde_json::from_slice(without_mark(&bytes));
    value
        .map(Some)
        .map_err(|source| ExportError::Json { path, source })
}

/// config.json of the folder `dir` with another `quantization_config`, or none. A model whose head has weights of its own says so.
///
/// # Errors
/// As [`read_json`]; a config that is no object, or that of several modalities.
pub fn rewritten(dir: &Path, quantization: Option<Value>, has_own_head: bool) -> Result<Value, ExportError> {
    let mut config = read_json(dir, "config.json")?.unwrap_or_default();
    let Some(fields) = config.as_object_mut() else {
        return Err(ExportError::Content {
            path: dir.join("config.json"),
            expected: "a JSON object",
            got: config.to_string().chars().take(40).collect(),
        });
    };
    if fields.contains_key("text_config") {
        return Err(ExportError::Content {
            path: dir.join("config.json"),
            expected: "the fields of a language model",
            got: "`text_config` of a model of several modalities: only its text was quantized, and another program would look for the rest"
                .into(),
        });
    }
    for name in ["quantization_config", "compression_config"] {
        fields.shift_remove(name);
    }
    if has_own_head {
        fields.insert("tie_word_embeddings".into(), false.into());
    }
    if let Some(quantization) = quantization {
        fields.insert("quantization_config".into(), quantization);
    }
    Ok(config)
}

/// Says that the floats are bf16, in the spelling that the config has.
pub fn set_bf16(config: &mut Value) {
    let known = TYPES.into_iter().filter(|name| config.get(name).is_some());
    let mut names: Vec<_> = known.collect();
    if names.is_empty() {
        names.push("dtype");
    }
    for name in names {
        config[name] = "bfloat16".into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"z": 1, "quantization_config": {"quant_method": "dualgrain"}, "torch_dtype": "float16", "tie_word_embeddings": true}"#;
        fs::write(dir.path().join("config.json"), text).unwrap();
        let kept = rewritten(dir.path(), None, false).unwrap();
        assert_eq!(
            kept,
            json!({"z": 1, "torch_dtype": "float16", "tie_word_embeddings": true})
        );
        let mut changed = rewritten(dir.path(), Some(json!({"a": 2})), true).unwrap();
        set_bf16(&mut changed);
        let expected = json!({"z": 1, "torch_dtype": "bfloat16", "tie_word_embeddings": false, "quantization_config": {"a": 2}});
        assert_eq!(changed, expected);
        let mut plain = json!({});
        set_bf16(&mut plain);
        assert_eq!(plain, json!({"dtype": "bfloat16"}));
    }

    #[test]
    fn a_config_that_is_no_object_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "[]").unwrap();
        let error = rewritten(dir.path(), None, false).unwrap_err().to_string();
        assert!(
            error.contains("config.json: expected a JSON object, got []"),
            "{error}"
        );
        fs::write(dir.path().join("config.json"), r#"{"text_config": {}}"#).unwrap();
        let error = rewritten(dir.path(), None, false).unwrap_err().to_string();
        assert!(error.contains("`text_config`"), "{error}");
    }
}
