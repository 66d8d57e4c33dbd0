//! Writes a Llama-shaped model folder with random bf16 weights: for timing, memory measurements and tests at sizes
//! for which no trained model is at hand. Its text is noise.
//!
//!     cargo run --release --example random_model -- --shape llama-1b OUT
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use dualgrain_format::checkpoint::{Dtype, FolderWriter, TensorSpec};
use serde_json::json;

#[derive(Parser)]
struct Arguments {
    /// Size of the model.
    #[arg(long, value_enum, default_value_t = Shape::Llama1b)]
    shape: Shape,
    /// Layers, when fewer (or more) than the shape's own are wanted.
    #[arg(long)]
    layers: Option<usize>,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder whose tokenizer is copied.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/models/llama-tiny"))]
    tokenizer: PathBuf,
    /// Write config.json alone, for `quantize --plan`.
    #[arg(long)]
    config_only: bool,
    /// Folder to write.
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    /// hidden 256, ffn 768, 2 layers: for tests.
    LlamaNano,
    /// hidden 2048, ffn 5632, 22 layers, 32/4 heads, vocabulary 32,000: 1.1 B parameters.
    #[value(name = "llama-1b")]
    Llama1b,
    /// hidden 4096, ffn 11008, 32 layers, 32/32 heads, vocabulary 32,000: 6.7 B parameters.
    #[value(name = "llama-7b")]
    Llama7b,
}

#[derive(Clone, Copy)]
struct Sizes {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
}

impl Shape {
    fn sizes(self) -> Sizes {
        let (hidden, ffn, layers, heads, kv_heads, vocab) = match self {
            Self::LlamaNano => (256, 768, 2, 4, 2, 8192),
            Self::Llama1b => (2048, 5632, 22, 32, 4, 32_000),
            Self::Llama7b => (4096, 11_008, 32, 32, 32, 32_000),
        };
        Sizes {
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            vocab,
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut sizes = arguments.shape.sizes();
    sizes.layers = arguments.layers.unwrap_or(sizes.layers);
    let mut folder = FolderWriter::create(&arguments.out, false)?;
    folder.write_file(
        "config.json",
        serde_json::to_string_pretty(&config(sizes))?.as_bytes(),
    )?;
    if arguments.config_only {
        return Ok(folder.commit()?);
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        copy(&mut folder, &arguments.tokenizer.join(name), name)?;
    }
    let tensors = tensors(sizes);
    folder.start_tensors(tensors.clone())?;
    let mut noise = Noise(arguments.seed ^ 0x9e37_79b9_7f4a_7c15);
    for (index, tensor) in tensors.iter().enumerate() {
        folder.write_tensor(&tensor.name, &noise.tensor(tensor))?;
        if index % 20 == 0 {
            eprintln!("{} of {} tensors", index + 1, tensors.len());
        }
    }
    folder.commit()?;
    Ok(())
}

fn copy(folder: &mut FolderWriter, from: &Path, name: &str) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    Ok(folder.write_file(name, &bytes)?)
}

fn config(s: Sizes) -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.hidden / s.heads,
        "vocab_size": s.vocab,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    })
}

fn tensors(s: Sizes) -> Vec<TensorSpec> {
    let kv = s.kv_heads * (s.hidden / s.heads);
    let spec = |name: String, shape: &[usize]| TensorSpec {
        name,
        dtype: Dtype::BF16,
        shape: shape.to_vec(),
    };
    let mut all = vec![spec("model.embed_tokens.weight".into(), &[s.vocab, s.hidden])];
    for layer in 0..s.layers {
        let members: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![s.hidden]),
            ("self_attn.q_proj", vec![s.hidden, s.hidden]),
            ("self_attn.k_proj", vec![kv, s.hidden]),
            ("self_attn.v_proj", vec![kv, s.hidden]),
            ("self_attn.o_proj", vec![s.hidden, s.hidden]),
            ("post_attention_layernorm", vec![s.hidden]),
            ("mlp.gate_proj", vec![s.ffn, s.hidden]),
            ("mlp.up_proj", vec![s.ffn, s.hidden]),
            ("mlp.down_proj", vec![s.hidden, s.ffn]),
        ];
        all.extend(
            members
                .iter()
                .map(|(name, shape)| spec(format!("model.layers.{layer}.{name}.weight"), shape)),
        );
    }
    all.push(spec("model.norm.weight".into(), &[s.hidden]));
    all.push(spec("lm_head.weight".into(), &[s.vocab, s.hidden]));
    all
}

/// A stream of roughly normal numbers (SplitMix64; four 16-bit uniforms are summed).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let sum: u64 = (0..4).map(|part| (z >> (16 * part)) & 0xffff).sum();
        // Four uniforms on 0..1 have mean 2 and variance 1/3.
        (sum as f32 / 65_536.0 - 2.0) * 3f32.sqrt()
    }

    /// bf16 bytes: norms around 1, matrices with deviation 1 / sqrt(K) so that activations keep their size.
    fn tensor(&mut self, tensor: &TensorSpec) -> Vec<u8> {
        let count: usize = tensor.shape.iter().product();
        let (mean, deviation) = match tensor.shape[..] {
            [_, k] => (0.0, 1.0 / (k as f32).sqrt()),
            _ => (1.0, 0.1),
        };
        let mut bytes = Vec::with_capacity(2 * count);
        for _ in 0..count {
            let bits = (mean + deviation * self.next()).to_bits();
            bytes.extend_from_slice(&((bits.wrapping_add(0x8000) >> 16) as u16).to_le_bytes());
        }
        bytes
    }
}
