//! `quantization_config` of config.json: what was done to which tensor, in words a loader can check.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::group_size::GroupSize;

/// The value of `quant_method` this crate writes and reads.
pub const QUANT_METHOD: &str = "dualgrain";
/// The only version of the tensor layout so far.
pub const FORMAT_VERSION: u32 = 1;
/// Tensor F32 `[num_layers]` with the static key scales of an `int8-static` cache.
pub const KEY_SCALES_TENSOR: &str = "kv_cache.key_scales";
/// Tensor F32 `[num_layers]` with the static value scales of an `int8-static` cache.
pub const VALUE_SCALES_TENSOR: &str = "kv_cache.value_scales";

/// `quantization_config` of a dual-grained folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationConfig {
    /// Always [`QUANT_METHOD`].
    pub quant_method: String,
    /// Always [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Weights along K that share a group scale.
    pub group_size: GroupSize,
    /// Where activation scales come from.
    pub activations: ActivationScheme,
    /// How keys and values are kept while running.
    pub kv_cache: CacheScheme,
    /// How activations were smoothed before quantizing, for readers ("percentile 99.5", "off").
    #[serde(default)]
    pub smoothing: String,
    /// How scales were searched, for readers ("two-phase", "rtn").
    #[serde(default)]
    pub search: String,
    /// Scheme of each linear by its name without `.weight`; a linear that is not listed is float.
    #[serde(default)]
    pub tensors: BTreeMap<String, TensorScheme>,
}

/// Where activation scales come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivationScheme {
    /// A scale per token, found while running.
    #[serde(rename = "per-token")]
    PerToken,
    /// A calibrated scale per linear, stored as `X.ta`.
    #[serde(rename = "static")]
    Static,
}

/// How keys and values are kept while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheScheme {
    /// 16-bit floats.
    #[serde(rename = "f16")]
    F16,
    /// INT8 with a scale per token and head.
    #[serde(rename = "int8")]
    Int8,
    /// INT8 with calibrated scales per layer ([`KEY_SCALES_TENSOR`], [`VALUE_SCALES_TENSOR`]).
    #[serde(rename = "int8-static")]
    Int8Static,
}

/// How one linear is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorScheme {
    /// `X.weight` in a float type.
    Float,
    /// `X.w8` I8 `[N,K]` and `X.s1` F32 `[N]`.
    W8,
    /// `X.q`, `X.zero`, `X.s2`, `X.s1`: the dual-grained layer.
    W4,
}

/// Why a `quantization_config` was refused.
#[derive(Debug, Error)]
pub enum SchemeError {
    /// Another program quantized this model.
    #[error("quant_method is `{got}`, this program reads `{QUANT_METHOD}` (and unquantized models)")]
    Method {
        /// The value found.
        got: String,
    },
    /// A later (or broken) layout.
    #[error(
        "format_version is {got}, this program reads {FORMAT_VERSION}: use a newer dualgrain or quantize again"
    )]
    Version {
        /// The value found.
        got: String,
    },
    /// A field has a value that is not known, or a group size other than 32, 64, 128 and "channel".
    #[error("quantization_config: {0}")]
    Json(#[from] serde_json::Error),
}

impl QuantizationConfig {
    /// A config of this version; every linear still has to be entered into `tensors`.
    pub fn new(group_size: GroupSize, activations: ActivationScheme, kv_cache: CacheScheme) -> Self {
        Self {
            quant_method: QUANT_METHOD.into(),
            format_version: FORMAT_VERSION,
            group_size,
            activations,
            kv_cache,
            smoothing: String::new(),
            search: String::new(),
            tensors: BTreeMap::new(),
        }
    }

    /// Reads the value of `quantization_config`; method and version are judged before anything else, so that a
    /// folder of another program gets the error that helps.
    ///
    /// # Errors
    /// See [`SchemeError`].
    pub fn from_json(value: &serde_json::Value) -> Result<Self, SchemeError> {
        let text = |key| value.get(key).map_or_else(|| "missing".to_owned(), plain);
        if value.get("quant_method").and_then(|v| v.as_str()) != Some(QUANT_METHOD) {
            return Err(SchemeError::Method {
                got: text("quant_method"),
            });
        }
        if value.get("format_version").and_then(|v| v.as_u64()) != Some(u64::from(FORMAT_VERSION)) {
            return Err(SchemeError::Version {
                got: text("format_version"),
            });
        }
        Ok(serde_json::from_value(value.clone())?)
    }

    /// Scheme of linear `name` (without `.weight`).
    pub fn scheme(&self, name: &str) -> TensorScheme {
        self.tensors.get(name).copied().unwrap_or(TensorScheme::Float)
    }
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_config_survives_a_round_trip_in_its_documented_spelling() {
        let mut config = QuantizationConfig::new(
            GroupSize::WholeRow,
            ActivationScheme::PerToken,
            CacheScheme::Int8Static,
        );
        config.tensors.insert("lm_head".into(), TensorScheme::W8);
        let value = serde_json::to_value(&config).unwrap();
        assert_eq!(value["group_size"], "channel");
        assert_eq!(value["activations"], "per-token");
        assert_eq!(value["kv_cache"], "int8-static");
        assert_eq!(value["tensors"]["lm_head"], "w8");
        assert_eq!(QuantizationConfig::from_json(&value).unwrap(), config);
        assert_eq!(config.scheme("lm_head"), TensorScheme::W8);
        assert_eq!(config.scheme("other"), TensorScheme::Float);
    }

    #[test]
    fn another_method_or_version_is_named_before_missing_fields() {
        let gptq = QuantizationConfig::from_json(&json!({"quant_method": "gptq", "bits": 4})).unwrap_err();
        assert!(gptq.to_string().contains("`gptq`"), "{gptq}");
        let later = QuantizationConfig::from_json(&json!({"quant_method": "dualgrain", "format_version": 2}));
        assert!(matches!(later.unwrap_err(), SchemeError::Version { got } if got == "2"));
        assert!(QuantizationConfig::from_json(&json!(null)).is_err());
    }

    #[test]
    fn odd_group_sizes_and_words_are_refused() {
        let with = |group: serde_json::Value| {
            QuantizationConfig::from_json(&json!({"quant_method": "dualgrain", "format_version": 1,
                "group_size": group, "activations": "static", "kv_cache": "f16"}))
        };
        assert!(with(json!(64)).is_ok());
        assert!(with(json!(48)).is_err());
        assert!(with(json!("row")).is_err());
        assert!(with(json!(-1)).is_err());
    }
}
