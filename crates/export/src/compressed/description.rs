//! `quantization_config` of a compressed-tensors folder.

use std::collections::BTreeMap;

use dualgrain_engine::Family;
use dualgrain_format::{GroupSize, LinearScheme};
use serde_json::{Value, json};

use crate::formats::ExportFormat;
use crate::source::Source;

/// Describes the linears of the blocks; the head is left out as a float.
pub fn quantization_config(source: &Source, format: ExportFormat) -> Value {
    let groups = groups(source);
    let is_mixed = groups.len() > 1;
    let has_int8_groups = format == ExportFormat::CompressedTensors && groups.contains_key("w8");
    let mut described = serde_json::Map::new();
    for (index, (scheme, targets)) in groups.into_values().enumerate() {
        // One scheme for all needs no names, and names are looked up slowly.
        let targets = if is_mixed {
            targets
        } else {
            vec!["Linear".to_owned()]
        };
        let mut group = group(scheme, targets, format);
        if has_int8_groups {
            group["format"] = packing(scheme, format).into();
        }
        described.insert(format!("group_{index}"), group);
    }
    let mut ignore = source.float_linears();
    ignore.push(source.head_name().to_owned());
    if source.config.family == Family::GptNeoX {
        // What others than transformers 5 call it.
        ignore.push("embed_out".to_owned());
    }
    json!({
        "quant_method": "compressed-tensors",
        "format": if has_int8_groups && is_mixed { "mixed-precision" } else if has_int8_groups { "int-quantized" } else { "pack-quantized" },
        "quantization_status": "compressed",
        "config_groups": described,
        "ignore": ignore,
        "kv_cache_scheme": null,
        "global_compression_ratio": null
    })
}

/// The linears of the blocks by their scheme, in words.
fn groups(source: &Source) -> BTreeMap<String, (LinearScheme, Vec<String>)> {
    let mut groups = BTreeMap::new();
    let head = source.head_name();
    for linear in source.linears.iter().filter(|linear| linear.name != head) {
        let (_, names) = groups
            .entry(linear.scheme.to_string())
            .or_insert((linear.scheme, Vec::new()));
        names.push(linear.name.clone());
    }
    groups
}

fn group(scheme: LinearScheme, targets: Vec<String>, format: ExportFormat) -> Value {
    json!({
        "targets": targets,
        "weights": weights(scheme),
        "input_activations": input_activations(format),
        "output_activations": null
    })
}

fn weights(scheme: LinearScheme) -> Value {
    let (strategy, group_size) = match scheme.group_size() {
        Some(GroupSize::Along(size)) => ("group", json!(size)),
        Some(GroupSize::WholeRow) | None => ("channel", Value::Null),
    };
    let is_w4 = scheme.group_size().is_some();
    json!({
        "num_bits": if is_w4 { 4 } else { 8 },
        "type": "int",
        "symmetric": !is_w4,
        "strategy": strategy,
        "group_size": group_size,
        "dynamic": false
    })
}

fn input_activations(format: ExportFormat) -> Value {
    match format {
        ExportFormat::CompressedTensors => {
            json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true})
        }
        _ => Value::Null,
    }
}

/// How the weights of a scheme lie in the file.
fn packing(scheme: LinearScheme, format: ExportFormat) -> &'static str {
    match (scheme, format) {
        (LinearScheme::W8, ExportFormat::CompressedTensors) => "int-quantized",
        _ => "pack-quantized",
    }
}
