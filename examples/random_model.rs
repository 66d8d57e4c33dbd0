//! Writes a model folder with random weights, Llama-shaped or a mixture of experts, bf16 or W4A8: for timing, memory measurements and tests at sizes
//! for which no trained model is at hand. Its text is noise.
//!
//!     cargo run --release --example random_model -- --shape llama-1b OUT
//!     cargo run --release --example random_model -- --shape llama-8b --w4a8 OUT
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use dualgrain_format::checkpoint::{Dtype, FolderWriter, LinearLayout, TensorSpec};
use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme, QuantizationConfig};
use serde_json::{Value, json};

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
    /// Folder whose tokenizer is copied; without it the bundled model's is written.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Write 4-bit weights, an 8-bit head and an INT8 cache, as `quantize` would, within seconds.
    #[arg(long)]
    w4a8: bool,
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
    /// hidden 4096, ffn 14336, 32 layers, 32/8 heads, vocabulary 128,256: 8.0 B parameters.
    #[value(name = "llama-8b")]
    Llama8b,
    /// hidden 8192, ffn 28672, 80 layers, 64/8 heads, vocabulary 128,256: 70.6 B parameters.
    #[value(name = "llama-70b")]
    Llama70b,
    /// hidden 1024, 64 experts of 256 of which a token takes 8, 20 layers, 16/4 heads, vocabulary 32,000: 1.1 B parameters, 0.2 B active.
    #[value(name = "qwen3-moe-1b")]
    Qwen3Moe1b,
    /// The same without experts: a feed-forward of 2048, as wide as the experts that a token takes.
    #[value(name = "qwen3-0.2b")]
    Qwen302b,
}

#[derive(Clone, Copy)]
struct Sizes {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    /// How many experts there are in the place of a feed-forward, and how many of them a token takes.
    experts: Option<(usize, usize)>,
    qk_norm: bool,
}

impl Shape {
    fn sizes(self) -> Sizes {
        let (hidden, ffn, layers, heads, kv_heads, vocab) = match self {
            Self::LlamaNano => (256, 768, 2, 4, 2, 8192),
            Self::Llama1b => (2048, 5632, 22, 32, 4, 32_000),
            Self::Llama7b => (4096, 11_008, 32, 32, 32, 32_000),
            Self::Llama8b => (4096, 14_336, 32, 32, 8, 128_256),
            Self::Llama70b => (8192, 28_672, 80, 64, 8, 128_256),
            Self::Qwen3Moe1b => (1024, 256, 20, 16, 4, 32_000),
            Self::Qwen302b => (1024, 2048, 20, 16, 4, 32_000),
        };
        Sizes {
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            vocab,
            experts: matches!(self, Self::Qwen3Moe1b).then_some((64, 8)),
            qk_norm: matches!(self, Self::Qwen3Moe1b | Self::Qwen302b),
        }
    }
}

/// The bundled model's tokenizer.
const TOKENIZER: [(&str, &[u8]); 2] = [
    (
        "tokenizer.json",
        include_bytes!("../models/llama-tiny/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../models/llama-tiny/tokenizer_config.json"),
    ),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut sizes = arguments.shape.sizes();
    sizes.layers = arguments.layers.unwrap_or(sizes.layers);
    let mut folder = FolderWriter::create(&arguments.out, false)?;
    let config = config(sizes, arguments.w4a8)?;
    folder.write_file("config.json", serde_json::to_string_pretty(&config)?.as_bytes())?;
    if arguments.config_only {
        return Ok(folder.commit()?);
    }
    for (name, bundled) in TOKENIZER {
        match &arguments.tokenizer {
            Some(from) => copy(&mut folder, &from.join(name), name)?,
            None if name == "tokenizer.json" => folder.write_file(name, &filled(bundled, sizes.vocab)?)?,
            None => folder.write_file(name, bundled)?,
        }
    }
    let tensors = match arguments.w4a8 {
        true => quantized_tensors(sizes),
        false => tensors(sizes),
    };
    folder.start_tensors(tensors.clone())?;
    let mut noise = Noise(arguments.seed ^ 0x9e37_79b9_7f4a_7c15);
    for (index, tensor) in tensors.iter().enumerate() {
        folder.write_tensor(&tensor.name, &noise.tensor(tensor))?;
        if index % 200 == 0 {
            eprintln!("{} of {} tensors", index + 1, tensors.len());
        }
    }
    folder.commit()?;
    Ok(())
}

/// A tokenizer with a word for every id of a vocabulary: an answer of random tokens has text then, token by token, as others do.
fn filled(tokenizer: &[u8], vocab: usize) -> Result<Vec<u8>> {
    let mut tokenizer: Value = serde_json::from_slice(tokenizer)?;
    let words = tokenizer["model"]["vocab"].as_object_mut();
    let words = words.context("the bundled tokenizer has no vocabulary")?;
    for id in words.len()..vocab {
        // No merge leads to them, so that texts are cut as before. The mark is that of a space.
        words.insert(format!("\u{120}<{id}>"), id.into());
    }
    Ok(serde_json::to_vec(&tokenizer)?)
}

fn copy(folder: &mut FolderWriter, from: &Path, name: &str) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    Ok(folder.write_file(name, &bytes)?)
}

fn config(s: Sizes, w4a8: bool) -> Result<serde_json::Value> {
    let (class, model_type) = match (s.experts, s.qk_norm) {
        (Some(_), _) => ("Qwen3MoeForCausalLM", "qwen3_moe"),
        (None, true) => ("Qwen3ForCausalLM", "qwen3"),
        (None, false) => ("LlamaForCausalLM", "llama"),
    };
    let mut config = json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.hidden / s.heads,
        "vocab_size": s.vocab,
        "max_position_embeddings": if s.vocab > 100_000 { 131_072 } else { 4096 },
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    });
    if let Some((num_experts, num_chosen)) = s.experts {
        config["moe_intermediate_size"] = s.ffn.into();
        config["num_experts"] = num_experts.into();
        config["num_experts_per_tok"] = num_chosen.into();
        config["norm_topk_prob"] = true.into();
    }
    if w4a8 {
        let linears = tensors(s).into_iter().filter_map(|tensor| {
            let scheme = scheme(&tensor)?;
            Some((linear_name(&tensor).to_owned(), scheme))
        });
        config["quantization_config"] = serde_json::to_value(QuantizationConfig {
            group_size: GROUP_SIZE,
            activations: ActivationScheme::PerToken,
            kv_cache: CacheScheme::Int8,
            smoothing: "off".into(),
            rotation: String::new(),
            hadamard_down: None,
            search: "random".into(),
            linears: linears.collect(),
        })?;
    }
    Ok(config)
}

const GROUP_SIZE: GroupSize = GroupSize::Along(128);

/// What a tensor of the float model becomes; nothing where it stays as it is.
fn scheme(tensor: &TensorSpec) -> Option<LinearScheme> {
    match tensor.name.as_str() {
        "lm_head.weight" => Some(LinearScheme::W8),
        name if name.ends_with("_proj.weight") => Some(LinearScheme::W4 {
            group_size: GROUP_SIZE,
        }),
        _ => None,
    }
}

fn linear_name(tensor: &TensorSpec) -> &str {
    tensor.name.trim_end_matches(".weight")
}

/// The tensors of the same model with its linears quantized.
fn quantized_tensors(s: Sizes) -> Vec<TensorSpec> {
    let quantized = |tensor: TensorSpec| match scheme(&tensor) {
        None => vec![tensor],
        Some(scheme) => LinearLayout {
            scheme,
            n: tensor.shape[0],
            k: tensor.shape[1],
            float: Dtype::BF16,
            bias: false,
            static_activations: false,
        }
        .specs(linear_name(&tensor)),
    };
    tensors(s).into_iter().flat_map(quantized).collect()
}

fn tensors(s: Sizes) -> Vec<TensorSpec> {
    let spec = |name: String, shape: &[usize]| TensorSpec {
        name,
        dtype: Dtype::BF16,
        shape: shape.to_vec(),
    };
    let mut all = vec![spec("model.embed_tokens.weight".into(), &[s.vocab, s.hidden])];
    for layer in 0..s.layers {
        let members = attention_tensors(s).into_iter().chain(feed_forward_tensors(s));
        all.extend(members.map(|(name, shape)| spec(format!("model.layers.{layer}.{name}.weight"), &shape)));
    }
    all.push(spec("model.norm.weight".into(), &[s.hidden]));
    all.push(spec("lm_head.weight".into(), &[s.vocab, s.hidden]));
    all
}

type Named = (String, Vec<usize>);

fn attention_tensors(s: Sizes) -> Vec<Named> {
    let (head_dim, kv) = (s.hidden / s.heads, s.kv_heads * (s.hidden / s.heads));
    let mut members = vec![
        ("input_layernorm", vec![s.hidden]),
        ("self_attn.q_proj", vec![s.hidden, s.hidden]),
        ("self_attn.k_proj", vec![kv, s.hidden]),
        ("self_attn.v_proj", vec![kv, s.hidden]),
        ("self_attn.o_proj", vec![s.hidden, s.hidden]),
        ("post_attention_layernorm", vec![s.hidden]),
    ];
    if s.qk_norm {
        members.extend(["self_attn.q_norm", "self_attn.k_norm"].map(|name| (name, vec![head_dim])));
    }
    members
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), shape))
        .collect()
}

fn feed_forward_tensors(s: Sizes) -> Vec<Named> {
    let of = |prefix: String| {
        let (wide, narrow) = (vec![s.ffn, s.hidden], vec![s.hidden, s.ffn]);
        [
            ("gate_proj", wide.clone()),
            ("up_proj", wide),
            ("down_proj", narrow),
        ]
        .map(|(name, shape)| (format!("{prefix}.{name}"), shape))
    };
    let Some((num_experts, _)) = s.experts else {
        return of("mlp".into()).into();
    };
    let experts = (0..num_experts).flat_map(|expert| of(format!("mlp.experts.{expert}")));
    let router = ("mlp.gate".to_owned(), vec![num_experts, s.hidden]);
    std::iter::once(router).chain(experts).collect()
}

/// Two 4-bit codes whose mean is 8, the zero. Of uniform codes it is 7.5, and the mean of a row of activations would grow sevenfold from layer
/// to layer, until queries and keys hold little else and scores lie hundreds apart.
fn centred(byte: u8) -> u8 {
    let low = if byte & 0x0f == 0 { 0x08 } else { byte & 0x0f };
    let high = if byte & 0xf0 == 0 { 0x80 } else { byte & 0xf0 };
    high | low
}

/// A stream of roughly normal numbers (SplitMix64; four 16-bit uniforms are summed).
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn normal(&mut self) -> f32 {
        let z = self.bits();
        let sum: u64 = (0..4).map(|part| (z >> (16 * part)) & 0xffff).sum();
        // Four uniforms on 0..1 have mean 2 and variance 1/3.
        (sum as f32 / 65_536.0 - 2.0) * 3f32.sqrt()
    }

    /// The bytes of a tensor: matrices with deviation 1 / sqrt(K), so that activations keep their size, norms around 1.
    fn tensor(&mut self, tensor: &TensorSpec) -> Vec<u8> {
        let (name, count) = (tensor.name.as_str(), tensor.shape.iter().product::<usize>());
        let columns = tensor.shape[tensor.shape.len() - 1] as f32;
        match (tensor.dtype, name.rsplit('.').next()) {
            (Dtype::BF16, _) if tensor.shape.len() == 2 => self.bf16(count, 0.0, 1.0 / columns.sqrt()),
            (Dtype::BF16, _) => self.bf16(count, 1.0, 0.1),
            (_, Some("zero")) => vec![0x88; count],
            (_, Some("s2")) => self.bytes(count).iter().map(|byte| 5 + byte % 5).collect(),
            // Of 4-bit codes about 8 times a group scale of about 7; of uniform 8-bit codes.
            (Dtype::F32, _) => {
                let deviation = if name.starts_with("lm_head") { 73.3 } else { 29.9 };
                let s1 = 1.0 / (deviation * 4096f32.sqrt());
                std::iter::repeat_n(s1.to_le_bytes(), count).flatten().collect()
            }
            // -128 is no code.
            (Dtype::I8, _) => self
                .bytes(count)
                .iter()
                .map(|&byte| if byte == 0x80 { 0 } else { byte })
                .collect(),
            _ => self.bytes(count).into_iter().map(centred).collect(),
        }
    }

    fn bf16(&mut self, count: usize, mean: f32, deviation: f32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 * count);
        for _ in 0..count {
            let bits = (mean + deviation * self.normal()).to_bits();
            bytes.extend_from_slice(&((bits.wrapping_add(0x8000) >> 16) as u16).to_le_bytes());
        }
        bytes
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.bits().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
