//! How a model's authors would sample from it: generation_config.json.

use std::path::Path;

use serde_json::Value;

use super::error::ConfigError;
use super::fields::Fields;
use super::file::{parse_object, read_file};

/// The sampling that generation_config.json names; what it does not name is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Divisor of the logits; 0 takes the most likely token (also where `do_sample` is false).
    pub temperature: Option<f32>,
    /// Only so many of the most likely tokens.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability.
    pub top_p: Option<f32>,
    /// Only tokens at least so many times as likely as the best.
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens that occur already.
    pub repetition_penalty: Option<f32>,
}

impl SamplingDefaults {
    /// Reads `dir/generation_config.json`; without the file nothing is named.
    ///
    /// As in transformers, temperature and cuts count only where `do_sample` is true, a penalty always.
    ///
    /// # Errors
    /// A file that is no JSON object, or a value of the wrong kind.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("generation_config.json");
        match path.exists() {
            true => read_file(&path, |text| Self::from_fields(Fields(&parse_object(text)?))),
            false => Ok(Self::default()),
        }
    }

    fn from_fields(fields: Fields<'_>) -> Result<Self, ConfigError> {
        let number = |name| Ok::<_, ConfigError>(fields.number(name)?.map(|number| number as f32));
        let repetition_penalty = number("repetition_penalty")?.filter(|penalty| *penalty != 1.0);
        if !fields.flag("do_sample", false)? {
            return Ok(Self {
                repetition_penalty,
                ..Self::default()
            });
        }
        // A k below 1 is how other programs write that there is none.
        let top_k = fields.value("top_k").filter(|k| k.as_i64() != Some(-1));
        Ok(Self {
            temperature: Some(number("temperature")?.unwrap_or(1.0)),
            top_k: match top_k {
                Some(Value::Null) | None => None,
                Some(_) => fields.count("top_k")?,
            },
            top_p: number("top_p")?.filter(|p| *p < 1.0),
            min_p: number("min_p")?.filter(|p| *p > 0.0),
            repetition_penalty,
        })
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SamplingDefaults, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
        SamplingDefaults::load(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn cuts_count_where_the_model_samples_and_penalties_always() {
        let named =
            r#""temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.05"#;
        let sampled = read(&format!(r#"{{"do_sample": true, {named}}}"#)).unwrap();
        let expected = SamplingDefaults {
            temperature: Some(0.6),
            top_k: Some(20),
            top_p: Some(0.95),
            min_p: None,
            repetition_penalty: Some(1.05),
        };
        assert_eq!(sampled, expected);
        let greedy = read(&format!("{{{named}}}")).unwrap();
        assert_eq!(greedy.temperature, None);
        assert_eq!(greedy.repetition_penalty, Some(1.05));
        assert_eq!(read(r#"{"do_sample": true}"#).unwrap().temperature, Some(1.0));
        assert!(read("{}").unwrap().is_empty());
        assert_eq!(read(r#"{"do_sample": true, "top_k": -1}"#).unwrap().top_k, None);
    }

    #[test]
    fn a_damaged_file_is_named() {
        for text in [
            "[]",
            "{",
            r#"{"do_sample": "yes"}"#,
            r#"{"do_sample": true, "top_p": "x"}"#,
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("generation_config.json"), "{error}");
        }
        let none = tempfile::tempdir().unwrap();
        assert!(SamplingDefaults::load(none.path()).unwrap().is_empty());
    }
}
