//! config.json of the model in a GGUF file.

use dualgrain_format::gguf::{GgufFile, GgufKind};
use serde_json::{Map, Value, json};

use super::names::ROPE_FACTORS;

/// Metadata of an architecture that becomes a field of config.json, by the end of its name.
const FIELDS: [(&str, &str); 9] = [
    ("block_count", "num_hidden_layers"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("context_length", "max_position_embeddings"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_theta"),
];

/// Metadata that is looked at, or that changes nothing.
const OTHERS: [&str; 8] = [
    "vocab_size",
    "attention.value_length",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "expert_count",
];

/// What the file's metadata and tensors say of the model, as the fields of config.json; in words what is not read.
pub fn config(file: &GgufFile, rope_factors: Option<Vec<f32>>) -> Result<Map<String, Value>, String> {
    let metadata = Metadata::of(file)?;
    metadata.refuse_unknown()?;
    let mut config = Map::new();
    let class = match metadata.architecture {
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        _ => "LlamaForCausalLM",
    };
    config.insert("model_type".to_owned(), metadata.architecture.into());
    config.insert("architectures".to_owned(), json!([class]));
    config.insert("dtype".to_owned(), dtype(file).into());
    for (name, field) in FIELDS {
        if let Some(value) = metadata.value(name) {
            if !value.is_number() {
                return Err(format!(
                    "`{}.{name}` is {value}, expected a number",
                    metadata.architecture
                ));
            }
            config.insert(field.to_owned(), value.clone());
        }
    }
    for name in [
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
    ] {
        if metadata.value(name).is_none() {
            return Err(format!("`{}.{name}` is missing", metadata.architecture));
        }
    }
    metadata.check_heads(&config)?;
    let has = |tensor: &str| file.tensors.contains_key(tensor);
    let embedding = file
        .tensors
        .get("token_embd.weight")
        .and_then(|tensor| tensor.shape.first());
    let embedding = embedding.ok_or("tensor `token_embd.weight` is missing")?;
    config.insert("vocab_size".to_owned(), json!(embedding));
    config.insert("tie_word_embeddings".to_owned(), json!(!has("output.weight")));
    config.insert("attention_bias".to_owned(), json!(has("blk.0.attn_q.bias")));
    config.insert("mlp_bias".to_owned(), json!(has("blk.0.ffn_gate.bias")));
    if let Some(scaling) = metadata.rope_scaling(&config, rope_factors)? {
        config.insert("rope_scaling".to_owned(), scaling);
    }
    for (name, field) in [("bos", "bos_token_id"), ("padding", "pad_token_id")] {
        let id = file.metadata.get(&format!("tokenizer.ggml.{name}_token_id"));
        config.insert(field.to_owned(), id.cloned().unwrap_or_default());
    }
    let ends =
        ["eos", "eot", "eom"].map(|name| file.metadata.get(&format!("tokenizer.ggml.{name}_token_id")));
    config.insert(
        "eos_token_id".to_owned(),
        ends.into_iter().flatten().cloned().collect(),
    );
    Ok(config)
}

/// The type of the model's floats, by which plans count bytes: that of all matrices, or the one that holds whatever they mean.
fn dtype(file: &GgufFile) -> &'static str {
    let matrices = file.tensors.values().filter(|tensor| tensor.shape.len() > 1);
    let mut kinds = matrices.map(|tensor| tensor.kind);
    let first = kinds.next();
    match first.filter(|first| kinds.all(|kind| kind == *first)) {
        Some(GgufKind::F16) => "float16",
        Some(GgufKind::Bf16) => "bfloat16",
        _ => "float32",
    }
}

/// The metadata of the file's architecture.
struct Metadata<'a> {
    architecture: &'a str,
    all: &'a Map<String, Value>,
}

impl<'a> Metadata<'a> {
    fn of(file: &'a GgufFile) -> Result<Self, String> {
        let all = &file.metadata;
        let architecture = all.get("general.architecture").and_then(Value::as_str);
        match architecture {
            Some(architecture @ ("llama" | "qwen2" | "qwen3")) => Ok(Self { architecture, all }),
            other => Err(format!(
                "`general.architecture` is {}, expected llama, qwen2 or qwen3",
                other.unwrap_or("missing")
            )),
        }
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.all.get(&format!("{}.{name}", self.architecture))
    }

    /// What is not known may change the model.
    fn refuse_unknown(&self) -> Result<(), String> {
        let start = format!("{}.", self.architecture);
        let own = self
            .all
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(&start)?, value)));
        for (name, value) in own {
            let is_known = OTHERS.contains(&name) || FIELDS.iter().any(|(known, _)| *known == name);
            let is_zero = value.as_f64() == Some(0.0) || value.as_bool() == Some(false);
            if !is_zero && (!is_known || name == "expert_count") {
                return Err(format!("`{start}{name}` is {value}, which is not supported"));
            }
        }
        Ok(())
    }

    /// The whole of each head is rotated, and keys are as long as values.
    fn check_heads(&self, config: &Map<String, Value>) -> Result<(), String> {
        let number = |name: &str| config.get(name).and_then(Value::as_u64);
        let (hidden, heads) = (number("hidden_size"), number("num_attention_heads"));
        let even = hidden
            .zip(heads)
            .and_then(|(hidden, heads)| hidden.checked_div(heads));
        let head_dim = number("head_dim").or(even);
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(value) = self.value(name)
                && value.as_u64() != head_dim
            {
                let dim = head_dim.unwrap_or_default();
                return Err(format!(
                    "`{}.{name}` is {value}, expected {dim}, a head's length",
                    self.architecture
                ));
            }
        }
        Ok(())
    }

    /// Frequencies that are divided one by one are those of a LongRoPE whose two lists are the same.
    fn rope_scaling(
        &self,
        config: &Map<String, Value>,
        factors: Option<Vec<f32>>,
    ) -> Result<Option<Value>, String> {
        let kind = self
            .value("rope.scaling.type")
            .and_then(Value::as_str)
            .unwrap_or("none");
        let number = |name: &str| self.value(name).cloned().unwrap_or_default();
        let factor = number("rope.scaling.factor");
        match (kind, factors) {
            ("none", None) => Ok(None),
            ("none", Some(factors)) => Ok(Some(json!({
                "rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.0,
                "original_max_position_embeddings": config.get("max_position_embeddings"),
            }))),
            ("linear", None) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
            ("yarn", None) => Ok(Some(json!({
                "rope_type": "yarn", "factor": factor,
                "original_max_position_embeddings": number("rope.scaling.original_context_length"),
            }))),
            (_, Some(_)) => Err(format!(
                "`{ROPE_FACTORS}` beside rope scaling {kind} is not supported"
            )),
            (other, None) => Err(format!(
                "`{}.rope.scaling.type` is {other}, expected none, linear or yarn",
                self.architecture
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualgrain_format::gguf::GgufEntry;

    fn file(more: Value) -> GgufFile {
        let mut metadata = json!({"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 64,
            "llama.feed_forward_length": 96, "llama.attention.head_count": 4, "llama.context_length": 128,
            "llama.rope.dimension_count": 16, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.eot_token_id": 5});
        let object = metadata.as_object_mut().unwrap();
        object.extend(more.as_object().unwrap().clone());
        let embedding = GgufEntry {
            kind: GgufKind::F16,
            shape: vec![100, 64],
            bytes: 0..12_800,
        };
        GgufFile {
            metadata: object.clone(),
            tensors: [("token_embd.weight".to_owned(), embedding)].into(),
        }
    }

    #[test]
    fn metadata_becomes_the_fields_of_a_folder() {
        let read = config(&file(json!({"llama.rope.freq_base": 5e5})), None).unwrap();
        let config = crate::ModelConfig::from_json(&Value::Object(read).to_string()).unwrap();
        assert_eq!(
            (config.hidden_size, config.ffn_size, config.num_layers),
            (64, 96, 2)
        );
        assert_eq!(
            (config.vocab_size, config.head_dim, config.tie_embeddings),
            (100, 16, true)
        );
        assert_eq!(config.eos_tokens, [2, 5]);
    }

    #[test]
    fn the_type_of_floats_is_that_of_all_matrices_or_holds_any() {
        let mut file = file(json!({}));
        let entry = |kind, shape: &[usize]| GgufEntry {
            kind,
            shape: shape.to_vec(),
            bytes: 0..0,
        };
        let norm = entry(GgufKind::F32, &[64]);
        file.tensors.insert("output_norm.weight".to_owned(), norm);
        assert_eq!(config(&file, None).unwrap()["dtype"], "float16");
        for kind in [GgufKind::Bf16, GgufKind::Q8_0, GgufKind::F32] {
            let head = entry(kind, &[100, 64]);
            file.tensors.insert("output.weight".to_owned(), head);
            assert_eq!(config(&file, None).unwrap()["dtype"], "float32");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (more, words) in [
            (json!({"general.architecture": "gemma3"}), "gemma3"),
            (json!({"llama.expert_count": 8}), "llama.expert_count"),
            (json!({"llama.logit_scale": 0.5}), "llama.logit_scale"),
            (
                json!({"llama.rope.dimension_count": 8}),
                "llama.rope.dimension_count",
            ),
            (json!({"llama.attention.head_count_kv": [4, 2]}), "head_count_kv"),
            (json!({"llama.rope.scaling.type": "longrope"}), "longrope"),
        ] {
            let error = config(&file(more), None).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
