//! What a user can choose, and where a run reads and writes.

use std::path::PathBuf;

use dualgrain_device::Statistics;
use dualgrain_engine::LinearId;
use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme};
use serde::{Deserialize, Serialize};

use crate::methods::ablation::Ablation;
use crate::methods::method::Method;
use crate::methods::search::Search;
use crate::schemes::SchemeRule;
use crate::transform::smoothing::{SmoothPairs, Smoothing};

/// Everything that decides the bytes of the output; two runs with equal options on the same model and text agree
/// bit for bit, whatever the number of threads.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantOptions {
    /// Weights along K that share a group scale.
    pub group_size: GroupSize,
    /// Linears that get another scheme than four bits in groups of `group_size`; where several rules cover a linear, the
    /// last one counts.
    pub schemes: Vec<SchemeRule>,
    /// Bits a weight that the block linears may take: schemes for the linears that no rule speaks of are chosen under it, instead of
    /// `group_size`.
    pub bits: Option<f64>,
    /// How scales are found.
    pub search: Search,
    /// Whether the residual stream and the value heads are rotated, so that no channel stands out (RMSNorm families only).
    /// Outliers are then gone, and smoothing is of little use.
    pub rotate: bool,
    /// Whether the input of every feed-forward's last linear goes through a Hadamard transform while the model runs, which
    /// spreads its outliers; smoothing leaves that input alone then.
    pub hadamard_down: bool,
    /// Steps of compensation that are left out, to see what they are worth.
    pub ablation: Ablation,
    /// How activation outliers are smoothed.
    pub smoothing: Smoothing,
    /// Which producer-consumer pairs are smoothed.
    pub pairs: SmoothPairs,
    /// Where activation scales come from.
    pub activations: ActivationScheme,
    /// How keys and values are kept while running (and during calibration).
    pub kv_cache: CacheScheme,
    /// What the head becomes.
    pub lm_head: LinearScheme,
    /// Calibration windows.
    pub num_windows: usize,
    /// Tokens in a window.
    pub window_tokens: usize,
}

impl Default for QuantOptions {
    fn default() -> Self {
        Self {
            group_size: GroupSize::Along(128),
            schemes: Vec::new(),
            bits: None,
            search: Search::Compensate,
            rotate: false,
            hadamard_down: false,
            ablation: Ablation::default(),
            smoothing: Smoothing::Auto,
            pairs: SmoothPairs::default(),
            activations: ActivationScheme::PerToken,
            kv_cache: CacheScheme::Int8,
            lm_head: LinearScheme::W8,
            num_windows: Search::Compensate.default_windows(),
            window_tokens: 1024,
        }
    }
}

impl QuantOptions {
    /// How linears get their four bits.
    pub fn method<D: Statistics>(&self) -> Box<dyn Method<D>> {
        self.search.method_without(self.ablation)
    }

    /// What linear `id` becomes.
    pub fn scheme(&self, id: LinearId) -> LinearScheme {
        let rule = self.schemes.iter().rev().find(|rule| rule.covers(id));
        let asked = rule.and_then(|rule| rule.scheme);
        asked.unwrap_or(LinearScheme::w4(self.group_size))
    }

    /// How the model is rotated, in words; empty where it is not.
    pub fn rotation(&self) -> String {
        if self.rotate {
            "residual stream and value heads".into()
        } else {
            String::new()
        }
    }

    /// The options by name, as the journal stores and compares them.
    pub fn described(&self) -> Vec<(String, String)> {
        let pairs = [
            ("norm-qkv", self.pairs.norm_qkv),
            ("norm-up", self.pairs.norm_up),
            ("up-down", self.pairs.up_down),
            ("v-out", self.pairs.v_out),
        ];
        let pairs: Vec<&str> = pairs
            .iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| *name)
            .collect();
        let options = [
            ("search", self.search.to_string()),
            ("smoothing", self.smoothing.to_string()),
            ("smoothed pairs", pairs.join(" ")),
            ("activations", activations_name(self.activations).to_owned()),
            ("kv cache", cache_name(self.kv_cache).to_owned()),
            ("lm_head", head_name(self.lm_head, self.group_size)),
            ("calibration windows", self.num_windows.to_string()),
            ("tokens per window", self.window_tokens.to_string()),
        ];
        let rules: Vec<String> = self.schemes.iter().map(ToString::to_string).collect();
        let schemes = (!rules.is_empty()).then(|| ("schemes", rules.join(" ")));
        let bits = self.bits.map(|bits| ("bits a weight", bits.to_string()));
        let rotation = self.rotate.then(|| ("rotation", self.rotation()));
        let hadamard = self
            .hadamard_down
            .then(|| ("transformed before down", "yes".to_owned()));
        let left_out = (!self.ablation.is_empty()).then(|| ("left out", self.ablation.to_string()));
        let optional = [schemes, bits, rotation, hadamard, left_out]
            .into_iter()
            .flatten();
        // A budget chooses the groups.
        let groups = self
            .bits
            .is_none()
            .then(|| ("group size", self.group_size.to_string()));
        let options = groups.into_iter().chain(options).chain(optional);
        options.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn activations_name(scheme: ActivationScheme) -> &'static str {
    match scheme {
        ActivationScheme::PerToken => "per-token",
        ActivationScheme::Static => "static",
    }
}

fn head_name(scheme: LinearScheme, usual: GroupSize) -> String {
    match scheme {
        LinearScheme::Float => "as it was".into(),
        LinearScheme::W8 => "int8".into(),
        LinearScheme::W4 { group_size } if group_size == usual => "w4a8".into(),
        LinearScheme::W4 { group_size } => format!("w4a8 in groups of {group_size}"),
    }
}

fn cache_name(scheme: CacheScheme) -> &'static str {
    match scheme {
        CacheScheme::F16 => "f16",
        CacheScheme::Int8 => "int8",
        CacheScheme::Int8Static => "int8-static",
    }
}

/// What to do about the journal of an earlier, unfinished run into the same folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalPolicy {
    /// Refuse to start: hours of work may lie in it.
    Refuse,
    /// Continue after its last finished block; start anew when there is none.
    Resume,
    /// Throw it away.
    Restart,
}

/// Where a run reads and writes, and what it may use.
#[derive(Debug, Clone)]
pub struct QuantJob {
    /// The original model's folder.
    pub model_dir: PathBuf,
    /// The folder that appears, whole, at the end.
    pub out_dir: PathBuf,
    /// Replace an existing model folder at `out_dir`.
    pub replace: bool,
    /// What to do about an earlier journal.
    pub journal: JournalPolicy,
    /// Calibration activations above this many bytes are kept on disk.
    pub spill_above_bytes: u64,
    /// The options.
    pub options: QuantOptions,
}

impl QuantJob {
    /// A job with the default options.
    pub fn new(model_dir: impl Into<PathBuf>, out_dir: impl Into<PathBuf>) -> Self {
        Self {
            model_dir: model_dir.into(),
            out_dir: out_dir.into(),
            replace: false,
            journal: JournalPolicy::Refuse,
            spill_above_bytes: 1_000_000_000,
            options: QuantOptions::default(),
        }
    }
}
