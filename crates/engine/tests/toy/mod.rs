//! A language model of a few hundred weights, small enough to run for a million steps.

use std::path::Path;
use std::sync::Arc;

use dualgrain_device::cases::Random;
use dualgrain_device::{CacheFormat, Device};
use dualgrain_engine::{LoadOptions, Model};
use dualgrain_format::checkpoint::{Dtype, FolderWriter, TensorSpec, f32_bytes};

/// Entries of the vocabulary.
pub const VOCAB_SIZE: u32 = 40;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "num_hidden_layers": 2, "intermediate_size": 24, "vocab_size": 40, "max_position_embeddings": 4096, "eos_token_id": 3}"#;

/// The model with an INT8 cache on `device`.
pub fn model<D: Device>(device: Arc<D>) -> Arc<Model<D>> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let options = LoadOptions {
        cache: Some(CacheFormat::Int8),
        ..LoadOptions::default()
    };
    Arc::new(Model::load(device, &folder.path().join("toy"), &options).unwrap())
}

fn write(folder: &Path) {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![40, 16]),
        ("model.norm.weight".to_owned(), vec![16]),
        ("lm_head.weight".to_owned(), vec![40, 16]),
    ];
    for layer in 0..2 {
        let parts = [
            ("input_layernorm", vec![16]),
            ("post_attention_layernorm", vec![16]),
            ("self_attn.q_proj", vec![16, 16]),
            ("self_attn.k_proj", vec![8, 16]),
            ("self_attn.v_proj", vec![8, 16]),
            ("self_attn.o_proj", vec![16, 16]),
            ("mlp.gate_proj", vec![24, 16]),
            ("mlp.up_proj", vec![24, 16]),
            ("mlp.down_proj", vec![16, 24]),
        ];
        tensors.extend(parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    let mut writer = FolderWriter::create(&folder.join("toy"), false).unwrap();
    writer.write_file("config.json", CONFIG.as_bytes()).unwrap();
    let spec = |(name, shape): &(String, Vec<usize>)| TensorSpec {
        name: name.clone(),
        dtype: Dtype::F32,
        shape: shape.clone(),
    };
    let mut specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    writer.start_tensors(specs.clone()).unwrap();
    let mut random = Random(11);
    for spec in specs {
        let scale = if spec.shape.len() == 1 { 1.0 } else { 0.8 };
        let len = spec.shape.iter().product();
        let values: Vec<f32> = (0..len)
            .map(|_| scale * (random.float() + f32::from(spec.shape.len() == 1)))
            .collect();
        writer.write_tensor(&spec.name, &f32_bytes(&values)).unwrap();
    }
    writer.commit().unwrap();
}
