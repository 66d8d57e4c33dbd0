//! `quantization_config` of config.json: what was done to which tensor, in words a loader can check.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::group_size::GroupSize;
use crate::linear_scheme::LinearScheme;

/// The value of `quant_method` this crate writes and reads.
pub const QUANT_METHOD: &str = "dualgrain";
/// The latest version of the layout. A folder says the least version that it needs: 3 has transformed inputs, 2 linears with groups of
/// their own; in version 1 all linears of four bits have the folder's one group size.
pub const FORMAT_VERSION: u32 = 3;
/// The version of a folder without transformed inputs.
const UNTRANSFORMED_VERSION: u32 = 2;
/// Channels that a Hadamard transform takes together at most: what a GPU's warp holds in registers. It is a power of two.
pub const MOST_HADAMARD_BLOCK: usize = 512;
/// Tensor F32 `[num_layers]` with the static key scales of an `int8-static` cache.
pub const KEY_SCALES_TENSOR: &str = "kv_cache.key_scales";
/// Tensor F32 `[num_layers]` with the static value scales of an `int8-static` cache.
pub const VALUE_SCALES_TENSOR: &str = "kv_cache.value_scales";

/// `quantization_config` of a dual-grained folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "Stored")]
pub struct QuantizationConfig {
    /// The usual group size: that of most linears of four bits.
    pub group_size: GroupSize,
    /// Where activation scales come from.
    pub activations: ActivationScheme,
    /// How keys and values are kept while running.
    pub kv_cache: CacheScheme,
    /// How activations were smoothed before quantizing, for readers ("percentile 99.5", "off").
    pub smoothing: String,
    /// How the model was rotated, for readers; empty where it was not.
    pub rotation: String,
    /// The input of every feed-forward's last linear goes through an orthonormal Hadamard transform in blocks of so many channels before
    /// it becomes INT8; a power of two, at most [`MOST_HADAMARD_BLOCK`].
    pub hadamard_down: Option<usize>,
    /// How scales were searched, for readers ("two-phase", "rtn").
    pub search: String,
    /// Scheme of each linear by its name without `.weight`; a linear that is not listed is float.
    pub linears: BTreeMap<String, LinearScheme>,
}

/// [`QuantizationConfig`] as it stands in config.json.
#[derive(Serialize, Deserialize)]
struct Stored {
    quant_method: String,
    format_version: u32,
    group_size: GroupSize,
    activations: ActivationScheme,
    kv_cache: CacheScheme,
    #[serde(default)]
    smoothing: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    rotation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hadamard_down: Option<usize>,
    #[serde(default)]
    search: String,
    /// Words of [`LinearScheme::parse`].
    #[serde(default)]
    tensors: BTreeMap<String, String>,
}

impl From<QuantizationConfig> for Stored {
    fn from(config: QuantizationConfig) -> Self {
        let usual = config.group_size;
        let linears = config.linears.into_iter();
        Self {
            quant_method: QUANT_METHOD.into(),
            format_version: match config.hadamard_down {
                None => UNTRANSFORMED_VERSION,
                Some(_) => FORMAT_VERSION,
            },
            group_size: usual,
            activations: config.activations,
            kv_cache: config.kv_cache,
            smoothing: config.smoothing,
            rotation: config.rotation,
            hadamard_down: config.hadamard_down,
            search: config.search,
            tensors: linears
                .map(|(name, scheme)| (name, scheme.spelled(usual)))
                .collect(),
        }
    }
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
        "format_version is {got}, this program reads 1 to {FORMAT_VERSION}: use a newer dualgrain or quantize again"
    )]
    Version {
        /// The value found.
        got: String,
    },
    /// A linear is in no scheme that the folder's version has.
    #[error(
        "quantization_config: `{name}` has the scheme `{got}`: expected {}",
        LinearSchemes(*.version)
    )]
    Linear {
        /// The linear.
        name: String,
        /// The word found.
        got: String,
        /// The folder's version.
        version: u32,
    },
    /// Blocks of a transform that no folder has.
    #[error(
        "quantization_config: `hadamard_down` is {got} in format_version {version}: expected a power of two from 2 to \
         {MOST_HADAMARD_BLOCK} in format_version {FORMAT_VERSION}"
    )]
    Hadamard {
        /// The value found.
        got: usize,
        /// The folder's version.
        version: u32,
    },
    /// A field has a value that is not known, or a group size other than 32, 64, 128 and "channel".
    #[error("quantization_config: {0}")]
    Json(#[from] serde_json::Error),
}

/// The words that a version has for schemes.
struct LinearSchemes(u32);

impl fmt::Display for LinearSchemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("float, w8, w4")?;
        match self.0 {
            1 => f.write_str(" (format_version 1 has one group size for all linears)"),
            _ => f.write_str(", w4/32, w4/64, w4/128 or w4/channel"),
        }
    }
}

impl QuantizationConfig {
    /// A config without linears; each one that is not float still has to be entered.
    pub fn new(group_size: GroupSize, activations: ActivationScheme, kv_cache: CacheScheme) -> Self {
        Self {
            group_size,
            activations,
            kv_cache,
            smoothing: String::new(),
            rotation: String::new(),
            hadamard_down: None,
            search: String::new(),
            linears: BTreeMap::new(),
        }
    }

    /// Reads the value of `quantization_config`; method and version are judged before anything else, so that a
    /// folder of another program gets the error that helps.
    ///
    /// # Errors
    /// See [`SchemeError`].
    pub fn from_json(value: &serde_json::Value) -> Result<Self, SchemeError> {
        let text = |key| {
            value
                .get(key)
                .map_or_else(|| "missing".to_owned(), |value| value.to_string())
        };
        if value.get("quant_method").and_then(|v| v.as_str()) != Some(QUANT_METHOD) {
            return Err(SchemeError::Method {
                got: value
                    .get("quant_method")
                    .map_or_else(|| text("quant_method"), plain),
            });
        }
        let version = value.get("format_version").and_then(serde_json::Value::as_u64);
        if !version.is_some_and(|version| (1..=u64::from(FORMAT_VERSION)).contains(&version)) {
            return Err(SchemeError::Version {
                got: text("format_version"),
            });
        }
        Self::from_stored(serde_json::from_value(value.clone())?)
    }

    fn from_stored(stored: Stored) -> Result<Self, SchemeError> {
        let (version, usual) = (stored.format_version, stored.group_size);
        let hadamard_down = checked_block(&stored)?;
        let scheme = |(name, word): (String, String)| {
            // Version 1 had no word for a group size of a linear's own.
            let known = version > 1 || !word.contains('/');
            match LinearScheme::parse(&word, usual).filter(|_| known) {
                Some(scheme) => Ok((name, scheme)),
                None => Err(SchemeError::Linear {
                    name,
                    got: word,
                    version,
                }),
            }
        };
        Ok(Self {
            group_size: usual,
            activations: stored.activations,
            kv_cache: stored.kv_cache,
            smoothing: stored.smoothing,
            rotation: stored.rotation,
            hadamard_down,
            search: stored.search,
            linears: stored.tensors.into_iter().map(scheme).collect::<Result<_, _>>()?,
        })
    }

    /// Scheme of linear `name` (without `.weight`).
    pub fn scheme(&self, name: &str) -> LinearScheme {
        self.linears.get(name).copied().unwrap_or(LinearScheme::Float)
    }
}

/// The transform of a version that has one: a program of an earlier version would leave it out without a word.
fn checked_block(stored: &Stored) -> Result<Option<usize>, SchemeError> {
    let version = stored.format_version;
    match stored.hadamard_down {
        Some(got)
            if version <= UNTRANSFORMED_VERSION
                || !got.is_power_of_two()
                || !(2..=MOST_HADAMARD_BLOCK).contains(&got) =>
        {
            Err(SchemeError::Hadamard { got, version })
        }
        block => Ok(block),
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
        config.linears.insert("lm_head".into(), LinearScheme::W8);
        let (own, usual) = (GroupSize::Along(32), GroupSize::WholeRow);
        config.linears.insert("own".into(), LinearScheme::w4(own));
        config.linears.insert("usual".into(), LinearScheme::w4(usual));
        let value = serde_json::to_value(&config).unwrap();
        assert_eq!(value["group_size"], "channel");
        assert_eq!(value["activations"], "per-token");
        assert_eq!(value["kv_cache"], "int8-static");
        assert_eq!(value["quant_method"], QUANT_METHOD);
        assert_eq!(value["format_version"], UNTRANSFORMED_VERSION);
        assert_eq!(
            value["tensors"],
            json!({"lm_head": "w8", "own": "w4/32", "usual": "w4"})
        );
        assert_eq!(QuantizationConfig::from_json(&value).unwrap(), config);
        assert_eq!(config.scheme("lm_head"), LinearScheme::W8);
        assert_eq!(config.scheme("other"), LinearScheme::Float);
    }

    #[test]
    fn another_method_or_version_is_named_before_missing_fields() {
        let gptq = QuantizationConfig::from_json(&json!({"quant_method": "gptq", "bits": 4})).unwrap_err();
        assert!(gptq.to_string().contains("`gptq`"), "{gptq}");
        let later = QuantizationConfig::from_json(&json!({"quant_method": "dualgrain", "format_version": 4}));
        assert!(matches!(later.unwrap_err(), SchemeError::Version { got } if got == "4"));
        assert!(QuantizationConfig::from_json(&json!(null)).is_err());
    }

    #[test]
    fn version_1_has_one_group_size_for_all_linears() {
        let with = |version: u32, word: &str| {
            QuantizationConfig::from_json(&json!({"quant_method": "dualgrain", "format_version": version,
                "group_size": 64, "activations": "static", "kv_cache": "f16", "tensors": {"a": word}}))
        };
        let sixty_four = LinearScheme::w4(GroupSize::Along(64));
        assert_eq!(with(1, "w4").unwrap().scheme("a"), sixty_four);
        assert_eq!(with(2, "w4").unwrap().scheme("a"), sixty_four);
        assert_eq!(
            with(2, "w4/32").unwrap().scheme("a"),
            LinearScheme::w4(GroupSize::Along(32))
        );
        for (version, word) in [(1, "w4/32"), (2, "w4/48"), (2, "w3"), (1, "")] {
            let error = with(version, word).unwrap_err().to_string();
            assert!(
                error.contains("`a`") && error.contains(&format!("`{word}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_transform_needs_the_version_that_older_programs_refuse() {
        let mut config = QuantizationConfig::new(
            GroupSize::Along(128),
            ActivationScheme::PerToken,
            CacheScheme::Int8,
        );
        config.hadamard_down = Some(256);
        let mut value = serde_json::to_value(&config).unwrap();
        assert_eq!(value["format_version"], 3);
        assert_eq!(QuantizationConfig::from_json(&value).unwrap(), config);
        for block in [0, 1, 96, 1024] {
            value["hadamard_down"] = block.into();
            let error = QuantizationConfig::from_json(&value).unwrap_err().to_string();
            assert!(error.contains(&format!("`hadamard_down` is {block}")), "{error}");
        }
        value["hadamard_down"] = 256.into();
        value["format_version"] = 2.into();
        let error = QuantizationConfig::from_json(&value).unwrap_err().to_string();
        assert!(error.contains("format_version 2"), "{error}");
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
