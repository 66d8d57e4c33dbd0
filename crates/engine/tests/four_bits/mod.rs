//! Fixtures as folders of 4-bit weights, rounded to nearest.

use std::fs;
use std::path::Path;

use dualgrain_engine::{BlockSpec, ModelConfig, Weights, load_linear_float, split_members};
use dualgrain_format::checkpoint::{Dtype, FolderWriter, LinearLayout, TensorSpec};
use dualgrain_format::{
    ActivationScheme, CacheScheme, FloatLinear, FloatValues, GroupSize, Int8Linear, KEY_SCALES_TENSOR,
    LinearWeights, QuantizationConfig, QuantizedLinear, QuantizedParts, VALUE_SCALES_TENSOR, int4,
};

use crate::golden::{family, read_config};

/// Fixtures that are written so.
pub const CASES: [&str; 6] = ["llama-bias", "mistral", "qwen3", "opt", "bloom", "bloom-6heads"];
/// Groups of the folders.
pub const GROUP: GroupSize = GroupSize::Along(32);

/// How a test folder is made.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// One scale for the activations of all tokens.
    pub static_activations: Option<f32>,
    /// Keys and values.
    pub cache: CacheScheme,
    /// Write `s1 * w8` as float weights instead: the same model without integer arithmetic.
    pub dequantized: bool,
}

/// 4-bit weights, scales by token, and a cache of f16.
pub const PLAIN: Recipe = Recipe {
    static_activations: None,
    cache: CacheScheme::F16,
    dequantized: false,
};

/// Round to nearest with the format's constraints; the search for better scales is not the engine's business.
pub fn round_to_nearest(linear: &LinearWeights, ta: Option<f32>) -> QuantizedLinear {
    let LinearWeights::Float(float) = linear else {
        panic!("not a float linear");
    };
    let (n, k, values) = (float.n(), float.k(), float.weight().to_f32());
    let bias = float.bias().map(<[f32]>::to_vec);
    let (q, zero, s2, s1) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut parts = QuantizedParts {
        q,
        zero,
        s2,
        s1,
        bias,
        ta,
    };
    for row in values.chunks(k) {
        let s1 = row.iter().fold(0_f32, |max, w| max.max(w.abs())) / 127.0;
        let (mut codes, mut zeros) = (Vec::new(), Vec::new());
        for group in 0..GROUP.num_groups(k) {
            let weights = &row[GROUP.range(group, k)];
            let min = weights.iter().fold(0_f32, |a, &b| a.min(b));
            let max = weights.iter().fold(0_f32, |a, &b| a.max(b));
            let s2 = ((max - min) / 15.0 / s1).round().clamp(1.0, 127.0);
            let zero = (-min / (s2 * s1)).round().clamp(0.0, 15.0);
            let limit = (127.0 / s2).floor();
            let (low, high) = ((zero - limit).max(0.0), (zero + limit).min(15.0));
            codes.extend(
                weights
                    .iter()
                    .map(|w| ((w / (s2 * s1)).round() + zero).clamp(low, high) as u8),
            );
            zeros.push(zero as u8);
            parts.s2.push(s2 as u8);
        }
        int4::pack_row(&codes, *zeros.last().unwrap(), &mut parts.q);
        int4::pack_row(&zeros, 0, &mut parts.zero);
        parts.s1.push(s1);
    }
    QuantizedLinear::new((n, k), GROUP, parts).unwrap()
}

/// The floats that a linear stands for.
fn dequantize(linear: &LinearWeights) -> LinearWeights {
    let (n, k) = (linear.n(), linear.k());
    let mut w8 = vec![0; n * k];
    let s1 = match linear {
        LinearWeights::W4(l) => {
            w8.chunks_mut(k)
                .enumerate()
                .for_each(|(row, w8)| l.w8_row(row, w8));
            l.s1()
        }
        LinearWeights::W8(l) => {
            w8.copy_from_slice(l.w8());
            l.s1()
        }
        LinearWeights::Float(_) => return linear.clone(),
    };
    let values = w8
        .iter()
        .enumerate()
        .map(|(i, &w)| s1[i / k] * f32::from(w))
        .collect();
    let bias = linear.bias().map(<[f32]>::to_vec);
    LinearWeights::Float(FloatLinear::new(n, k, FloatValues::F32(values), bias).unwrap())
}

/// An INT8 head from the checkpoint's own head or its embedding.
fn int8_head(weights: &Weights, config: &ModelConfig) -> LinearWeights {
    let name = if weights.contains("lm_head.weight") {
        "lm_head"
    } else {
        config.family.embedding_name()
    };
    let shape = (config.vocab_size, config.hidden_size);
    let values = weights
        .f32(&format!("{name}.weight"), &[shape.0, shape.1])
        .unwrap();
    let rows = values.chunks(shape.1);
    let s1 = rows
        .map(|row| row.iter().fold(0_f32, |max, w| max.max(w.abs())) / 127.0)
        .collect::<Vec<_>>();
    let w8 = values
        .iter()
        .enumerate()
        .map(|(i, w)| (w / s1[i / shape.1]).round() as i8)
        .collect();
    LinearWeights::W8(Int8Linear::new(shape, w8, s1, None, None).unwrap())
}

/// All quantized linears of a fixture under their checkpoint names.
fn linears(weights: &Weights, config: &ModelConfig, recipe: Recipe) -> Vec<(String, LinearWeights)> {
    let mut linears = vec![("lm_head".to_owned(), int8_head(weights, config))];
    for layer in 0..config.num_layers {
        let spec = BlockSpec::new(config, layer);
        for linear in spec.linears.values() {
            let joined = load_linear_float(weights, linear).unwrap();
            let quantized = round_to_nearest(&joined.weights, recipe.static_activations);
            linears.extend(split_members(&LinearWeights::W4(quantized), &joined.members).unwrap());
        }
    }
    if recipe.dequantized {
        linears
            .iter_mut()
            .for_each(|(_, linear)| *linear = dequantize(linear));
    }
    linears
}

/// Writes the quantized form of a fixture.
pub fn quantize(case: &str, target: &Path, recipe: Recipe) {
    let (weights, config) = (
        Weights::open(&family(case)).unwrap(),
        read_config(&family(case).join("config.json")),
    );
    let linears = linears(&weights, &config, recipe);
    let mut scheme = QuantizationConfig::new(GROUP, ActivationScheme::PerToken, recipe.cache);
    if recipe.static_activations.is_some() {
        scheme.activations = ActivationScheme::Static;
    }
    let mut specs = Vec::new();
    for (name, linear) in &linears {
        let layout = LinearLayout::of(linear);
        scheme.linears.insert(name.clone(), layout.scheme);
        specs.extend(layout.specs(name));
    }
    let mut others = Vec::new();
    for name in weights.names() {
        let linear = name.trim_end_matches(".weight").trim_end_matches(".bias");
        let linear_names = linears
            .iter()
            .map(|(name, _)| name.trim_start_matches("transformer."));
        if !linear_names
            .into_iter()
            .any(|name| linear.trim_start_matches("transformer.") == name)
        {
            let (dtype, shape, bytes) = weights.raw(&name).unwrap();
            let (shape, bytes) = (shape.to_vec(), bytes.to_vec());
            others.push((TensorSpec { name, dtype, shape }, bytes));
        }
    }
    if recipe.cache == CacheScheme::Int8Static {
        for name in [KEY_SCALES_TENSOR, VALUE_SCALES_TENSOR] {
            let (name, shape) = (name.to_owned(), vec![config.num_layers]);
            let bytes = 0.1_f32.to_le_bytes().repeat(config.num_layers);
            others.push((
                TensorSpec {
                    name,
                    dtype: Dtype::F32,
                    shape,
                },
                bytes,
            ));
        }
    }
    specs.extend(others.iter().map(|(spec, _)| spec.clone()));
    let text = fs::read_to_string(family(case).join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    if recipe.dequantized {
        json["tie_word_embeddings"] = false.into();
    } else {
        json["quantization_config"] = serde_json::to_value(&scheme).unwrap();
    }
    let mut folder = FolderWriter::create(target, false).unwrap();
    folder
        .write_file("config.json", json.to_string().as_bytes())
        .unwrap();
    folder.start_tensors(specs).unwrap();
    linears
        .iter()
        .for_each(|(name, linear)| folder.write_linear(name, linear).unwrap());
    others
        .iter()
        .for_each(|(spec, bytes)| folder.write_tensor(&spec.name, bytes).unwrap());
    folder.commit().unwrap();
}
