//! `inspect`: what a model folder holds.

use anyhow::Result;
use dualgrain::engine::{MixtureConfig, ModelConfig, ModelFolder, Storage};
use dualgrain::format::LinearScheme;
use serde::Serialize;

use crate::cli::arguments::Inspect;
use crate::cli::terminal::Terminal;
use crate::cli::units::bytes;
use crate::run::model_folder;

#[derive(Serialize)]
struct Report {
    model: String,
    family: String,
    parameters: u64,
    hidden_size: usize,
    ffn_size: usize,
    num_layers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    experts: Option<Experts>,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_positions: usize,
    bits_per_weight: f64,
    lm_head: &'static str,
    #[serde(flatten)]
    storage: Storage,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantization: Option<Quantization>,
}

#[derive(Serialize)]
struct Experts {
    /// Blocks that have experts.
    num_blocks: usize,
    num_experts: usize,
    num_chosen: usize,
    expert_size: usize,
    /// Width of the feed-forward beside them; 0 where there is none.
    shared_size: usize,
}

#[derive(Serialize)]
struct Quantization {
    group_size: serde_json::Value,
    activations: serde_json::Value,
    kv_cache: serde_json::Value,
    smoothing: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    rotation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hadamard_down: Option<usize>,
    search: String,
}

/// Reads configuration and tensor headers and prints them.
pub fn run(options: &Inspect, terminal: &Terminal) -> Result<()> {
    let dir = &options.model;
    let ModelFolder { config, weights, .. } = model_folder::judged(dir, terminal)?;
    let storage = Storage::measure(&weights, &config)?;
    let report = Report {
        model: dir.display().to_string(),
        family: format!("{:?}", config.family),
        parameters: storage.parameters(&weights)?,
        hidden_size: config.hidden_size,
        ffn_size: config.ffn_size,
        num_layers: config.num_layers,
        experts: config.mixture.as_ref().map(experts),
        num_heads: config.num_heads,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
        max_positions: config.max_positions,
        bits_per_weight: storage.bits_per_weight(),
        lm_head: lm_head(&config),
        storage,
        quantization: quantization(&config)?,
    };
    terminal.result(&report, &text(&report))
}

fn experts(mixture: &MixtureConfig) -> Experts {
    Experts {
        num_blocks: mixture.sparse_layers.iter().filter(|&&sparse| sparse).count(),
        num_experts: mixture.num_experts,
        num_chosen: mixture.rule.num_chosen,
        expert_size: mixture.expert_size,
        shared_size: mixture.shared.map_or(0, |shared| shared.size),
    }
}

fn lm_head(config: &ModelConfig) -> &'static str {
    let scheme = config
        .quantization
        .as_ref()
        .map_or(LinearScheme::Float, |q| q.scheme(config.family.head_name()));
    match (scheme, config.tie_embeddings) {
        (LinearScheme::Float, true) => "float, tied to the embedding",
        (LinearScheme::Float, false) => "float",
        (LinearScheme::W8, _) => "int8",
        (LinearScheme::W4 { .. }, _) => "w4a8",
    }
}

fn quantization(config: &ModelConfig) -> Result<Option<Quantization>> {
    let Some(q) = &config.quantization else {
        return Ok(None);
    };
    Ok(Some(Quantization {
        group_size: serde_json::to_value(q.group_size)?,
        activations: serde_json::to_value(q.activations)?,
        kv_cache: serde_json::to_value(q.kv_cache)?,
        smoothing: q.smoothing.clone(),
        rotation: q.rotation.clone(),
        hadamard_down: q.hadamard_down,
        search: q.search.clone(),
    }))
}

fn text(report: &Report) -> String {
    let schemes = report.storage.schemes.iter();
    let schemes: Vec<_> = schemes
        .map(|(scheme, count)| format!("{count} {scheme}"))
        .collect();
    let quantized = report.quantization.as_ref();
    format!(
        "{}\n\
         family          {}, {:.1} M parameters\n\
         blocks          {}\n{}\
         vocabulary      {}, {} positions\n\
         block linears   {}: {:.3} bits a weight\n\
         output layer    {}\n\
         on disk         {}, of which {} outside the block linears\n{}",
        report.model,
        report.family,
        report.parameters as f64 / 1e6,
        blocks_text(report),
        report.experts.as_ref().map_or(String::new(), experts_text),
        report.vocab_size,
        report.max_positions,
        schemes.join(", "),
        report.bits_per_weight,
        report.lm_head,
        bytes(report.storage.file_bytes),
        bytes(report.storage.other_bytes),
        quantized.map_or(String::new(), quantization_text)
    )
}

fn blocks_text(report: &Report) -> String {
    let experts = report.experts.as_ref();
    let ffn = match experts.is_some_and(|experts| experts.num_blocks == report.num_layers) {
        true => String::new(),
        false => format!(" ffn {},", report.ffn_size),
    };
    format!(
        "{} of hidden {},{ffn} {} heads of {}, {} kv heads",
        report.num_layers, report.hidden_size, report.num_heads, report.head_dim, report.num_kv_heads,
    )
}

fn experts_text(experts: &Experts) -> String {
    let shared = match experts.shared_size {
        0 => String::new(),
        size => format!(", and one of {size} for every token"),
    };
    format!(
        "experts         {} of {} in {} blocks, {} for each token{shared}\n",
        experts.num_experts, experts.expert_size, experts.num_blocks, experts.num_chosen
    )
}

fn quantization_text(q: &Quantization) -> String {
    let word = |value: &serde_json::Value| value.to_string().replace('"', "");
    let mut transforms = match q.rotation.is_empty() {
        true => String::new(),
        false => format!(", rotated {}", q.rotation),
    };
    if let Some(block) = q.hadamard_down {
        transforms += &format!(", Hadamard transform before down in blocks of {block}");
    }
    format!(
        "quantized       group {}, activations {}, cache {}, smoothing {}{transforms}, search {}\n",
        word(&q.group_size),
        word(&q.activations),
        word(&q.kv_cache),
        q.smoothing,
        q.search
    )
}
