//! Model families as data: one description of a block, one forward for all (block.rs).
//!
//! | family | block tensors | joined |
//! |---|---|---|
//! | Llama, Mistral, Qwen2, Qwen3 | `model.layers.I.{self_attn,mlp}.*_proj` | q, k, v and gate, up |
//! | OPT | `model.decoder.layers.I.{self_attn.*_proj,fc1,fc2}` | q, k, v |
//! | Phi-3 | the same, `qkv_proj` and `gate_up_proj` | one tensor each, in that order |
//! | Granite, SmolLM3 | as Llama | as Llama |
//! | GLM | as Llama, and `gate_up_proj` | q, k, v; rows of q and k sorted from neighbours to halves |
//! | StarCoder 2 | `model.layers.I.{self_attn.*_proj,mlp.c_fc,mlp.c_proj}` | q, k, v |
//! | BLOOM | `transformer.h.I.{self_attention,mlp}.*` | one tensor, its rows permuted to [q\|k\|v] |

use std::collections::BTreeMap;

use dualgrain_device::AttentionParams;

use crate::{EngineError, Family, FfnKind, LinearId, ModelConfig, NormKind, Position, Role};

/// One block: what its tensors are called and what happens between them.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSpec {
    /// Index of the block.
    pub layer: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Width inside the feed-forward.
    pub ffn_size: usize,
    /// Norm before attention.
    pub attn_norm: NormSpec,
    /// Norm before the feed-forward.
    pub ffn_norm: NormSpec,
    /// RMS norms of query heads and of key heads.
    pub qk_norm: Option<[NormSpec; 2]>,
    /// Queries and keys are rotated.
    pub rope: bool,
    /// Kind of feed-forward.
    pub ffn: FfnKind,
    /// The input of Down is transformed in blocks of so many channels.
    pub hadamard_down: Option<usize>,
    /// Scale, window and slopes of the attention.
    pub attention: AttentionParams,
    /// The linears, in order of execution.
    pub linears: BTreeMap<LinearId, LinearSpec>,
}

/// A norm's tensors: `name.weight`, and `name.bias` for [`NormKind::Layer`].
#[derive(Debug, Clone, PartialEq)]
pub struct NormSpec {
    /// Tensor name without `.weight`.
    pub name: String,
    /// Kind.
    pub kind: NormKind,
    /// Elements.
    pub len: usize,
    /// Epsilon.
    pub eps: f32,
    /// What the stored weight (and bias) is multiplied by.
    pub scale: f32,
}

/// A linear of a block: a matrix joined along N from one or more tensors of the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSpec {
    /// Which linear.
    pub id: LinearId,
    /// Output features of the joined matrix.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Tensors that make it up; their rows partition 0..n.
    pub members: Vec<Member>,
}

/// A tensor of the checkpoint and where its rows lie in the joined matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Tensor name without `.weight`, e.g. `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Row i of the tensor is row `rows[i]` of the joined matrix.
    pub rows: Vec<usize>,
    /// Whether `name.bias` exists.
    pub bias: bool,
}

/// Names of a family's tensors; those of a block stand after its prefix and index.
struct Names {
    block: &'static str,
    attn_norm: &'static str,
    ffn_norm: &'static str,
    qkv: &'static [&'static str],
    out: &'static str,
    up: &'static [&'static str],
    down: &'static str,
    embedding: &'static str,
    final_norm: &'static str,
}

const LLAMA: Names = Names {
    block: "model.layers",
    attn_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.o_proj",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    embedding: "model.embed_tokens",
    final_norm: "model.norm",
};

const OPT: Names = Names {
    block: "model.decoder.layers",
    attn_norm: "self_attn_layer_norm",
    ffn_norm: "final_layer_norm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.out_proj",
    up: &["fc1"],
    down: "fc2",
    embedding: "model.decoder.embed_tokens",
    final_norm: "model.decoder.final_layer_norm",
};

const BLOOM: Names = Names {
    block: "transformer.h",
    attn_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
    qkv: &["self_attention.query_key_value"],
    out: "self_attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    embedding: "transformer.word_embeddings",
    final_norm: "transformer.ln_f",
};

const PHI3: Names = Names {
    qkv: &["self_attn.qkv_proj"],
    up: &["mlp.gate_up_proj"],
    ..LLAMA
};

const GLM: Names = Names {
    up: &["mlp.gate_up_proj"],
    ..LLAMA
};

const STARCODER2: Names = Names {
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    ..LLAMA
};

impl Family {
    fn names(self) -> &'static Names {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 | Self::Granite | Self::SmolLm3 => &LLAMA,
            Self::Phi3 => &PHI3,
            Self::Starcoder2 => &STARCODER2,
            Self::Glm => &GLM,
            Self::Opt => &OPT,
            Self::Bloom => &BLOOM,
        }
    }

    /// Name of the token embedding, without `.weight`.
    pub fn embedding_name(self) -> &'static str {
        self.names().embedding
    }

    /// Name of the head, without `.weight`; a tied checkpoint need not have it.
    pub fn head_name(self) -> &'static str {
        "lm_head"
    }

    /// Name of the learned positions, without `.weight`.
    pub fn positions_name(self) -> &'static str {
        "model.decoder.embed_positions"
    }
}

impl ModelConfig {
    /// The norm before the head.
    pub fn final_norm(&self) -> NormSpec {
        NormSpec {
            scale: self.head_scale,
            ..self.norm_spec(self.family.names().final_norm.into())
        }
    }

    /// The norm after the embedding, for families that have one.
    pub fn embedding_norm(&self) -> Option<NormSpec> {
        self.embedding_norm
            .then(|| self.norm_spec("transformer.word_embeddings_layernorm".into()))
    }

    /// Columns of queries: `num_heads * head_dim`.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Columns of keys, and of values: `num_kv_heads * head_dim`.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Whether the checkpoint has a linear of that name (without `.weight`) in a block, or as the head.
    pub fn has_linear(&self, name: &str) -> bool {
        let names = self.family.names();
        let in_block = name
            .strip_prefix(names.block)
            .and_then(|rest| rest.strip_prefix('.'));
        let Some((layer, linear)) = in_block.and_then(|rest| rest.split_once('.')) else {
            return name == self.family.head_name();
        };
        let layer_exists = layer
            .parse()
            .is_ok_and(|number: usize| number < self.num_layers && number.to_string() == layer);
        let joined = names.qkv.iter().chain(names.up);
        let mut all = joined.chain([&names.out, &names.down]);
        layer_exists && all.any(|known| *known == linear)
    }

    fn norm_spec(&self, name: String) -> NormSpec {
        NormSpec {
            name,
            kind: self.norm,
            len: self.hidden_size,
            eps: self.norm_eps,
            scale: 1.0,
        }
    }
}

impl BlockSpec {
    /// The description of block `layer`.
    pub fn new(config: &ModelConfig, layer: usize) -> Self {
        let names = config.family.names();
        let full = |name: &str| format!("{}.{layer}.{name}", names.block);
        let head_norm = |name: &str| NormSpec {
            name: full(name),
            kind: NormKind::Rms,
            len: config.head_dim,
            eps: config.norm_eps,
            scale: 1.0,
        };
        Self {
            layer,
            hidden_size: config.hidden_size,
            head_dim: config.head_dim,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            ffn_size: config.ffn_size,
            attn_norm: config.norm_spec(full(names.attn_norm)),
            ffn_norm: config.norm_spec(full(names.ffn_norm)),
            qk_norm: config
                .qk_norm
                .then(|| ["self_attn.q_norm", "self_attn.k_norm"].map(head_norm)),
            rope: matches!(config.position, Position::Rope(_))
                && config.rotated_layers.get(layer).is_none_or(|&rotated| rotated),
            ffn: config.ffn,
            hadamard_down: config.hadamard_down,
            attention: attention_params(config, layer),
            linears: Role::ALL
                .map(|role| linear_spec(config, names, LinearId::dense(layer, role), &full))
                .map(|linear| (linear.id, linear))
                .into(),
        }
    }

    /// One of the linears.
    ///
    /// # Errors
    /// The block has none of that identity.
    pub fn linear(&self, id: LinearId) -> Result<&LinearSpec, EngineError> {
        self.linears.get(&id).ok_or(EngineError::NoLinear { id })
    }

    /// Columns of queries: `num_heads * head_dim`.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Columns of keys, and of values: `num_kv_heads * head_dim`.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

fn linear_spec(
    config: &ModelConfig,
    names: &Names,
    id: LinearId,
    full: &dyn Fn(&str) -> String,
) -> LinearSpec {
    let (hidden, ffn, q, kv) = (
        config.hidden_size,
        config.ffn_size,
        config.q_size(),
        config.kv_size(),
    );
    let (k, members, sizes, bias): (_, &[&str], &[usize], _) = match id.role {
        Role::Qkv => (hidden, names.qkv, &[q, kv, kv], config.qkv_bias),
        Role::Out => (q, &[names.out], &[hidden], config.out_bias),
        Role::Up => match config.ffn {
            FfnKind::Gated(_) => (hidden, names.up, &[ffn, ffn], config.ffn_bias),
            FfnKind::Plain(_) => (hidden, names.up, &[ffn], config.ffn_bias),
        },
        Role::Down => (ffn, &[names.down], &[hidden], config.ffn_bias),
    };
    // One tensor may hold all parts, one after the other.
    let together = [sizes.iter().sum()];
    let sizes = if members.len() == 1 { &together } else { sizes };
    let mut first = 0;
    let mut members = members
        .iter()
        .zip(sizes)
        .map(|(name, size)| {
            first += size;
            Member {
                name: full(name),
                rows: (first - size..first).collect(),
                bias,
            }
        })
        .collect::<Vec<_>>();
    if let (Role::Qkv, Family::Bloom, Some(member)) = (id.role, config.family, members.first_mut()) {
        member.rows = interleaved_rows(config.num_heads, config.head_dim);
    }
    if id.role == Role::Qkv && config.rotates_neighbours {
        let queries_and_keys = members.iter_mut().take(2);
        queries_and_keys.for_each(|member| sort_neighbours(&mut member.rows, config));
    }
    LinearSpec {
        id,
        n: members.iter().map(|member| member.rows.len()).sum(),
        k,
        members,
    }
}

/// Of the rotated rows of each head the even ones come first, then the odd ones: what were neighbours lies half of them apart.
fn sort_neighbours(rows: &mut [usize], config: &ModelConfig) {
    let half = config.rotary_dim / 2;
    for head in rows.chunks_exact_mut(config.head_dim) {
        let first = head.first().copied().unwrap_or_default();
        for (place, row) in head.iter_mut().take(2 * half).enumerate() {
            *row = first + place / 2 + if place % 2 == 0 { 0 } else { half };
        }
    }
}

/// BLOOM stores [head][q, k, v][head_dim]; the joined matrix is [q|k|v] of all heads.
fn interleaved_rows(num_heads: usize, head_dim: usize) -> Vec<usize> {
    let width = num_heads * head_dim;
    (0..num_heads)
        .flat_map(|head| (0..3).map(move |part| part * width + head * head_dim))
        .flat_map(|first| first..first + head_dim)
        .collect()
}

fn attention_params(config: &ModelConfig, layer: usize) -> AttentionParams {
    let alibi = config.position == Position::Alibi;
    let usual = 1.0 / (config.head_dim as f64).sqrt();
    AttentionParams {
        num_heads: config.num_heads,
        scale: config.attention_scale.unwrap_or(usual as f32),
        sliding_window: config.sliding_windows.get(layer).copied().flatten(),
        alibi_slopes: alibi.then(|| alibi_slopes(config.num_heads)),
    }
}

/// ALiBi slopes (arXiv 2108.12409): a geometric sequence for a power of two of heads, and for other counts those of
/// the next lower power followed by every second one of the next higher.
fn alibi_slopes(num_heads: usize) -> Vec<f32> {
    let power = 1 << num_heads.ilog2();
    let slopes = |heads: usize| (1..=heads).map(move |i| (-8.0 * i as f64 / heads as f64).exp2() as f32);
    slopes(power)
        .chain(slopes(2 * power).step_by(2).take(num_heads - power))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> ModelConfig {
        ModelConfig::from_json(json).unwrap()
    }

    #[test]
    fn members_partition_the_rows_of_every_linear() {
        for family in Family::ALL {
            let json = format!(r#"{{"model_type": "{}"}}"#, family.class_prefix().to_lowercase());
            let spec = BlockSpec::new(&config(&json), 1);
            for linear in spec.linears.values() {
                let mut rows = linear
                    .members
                    .iter()
                    .flat_map(|m| m.rows.clone())
                    .collect::<Vec<_>>();
                rows.sort_unstable();
                assert!(rows.into_iter().eq(0..linear.n), "{family:?} {}", linear.id);
            }
        }
    }

    #[test]
    fn a_model_has_the_linears_of_its_blocks_and_its_head() {
        for family in Family::ALL {
            let json = format!(r#"{{"model_type": "{}"}}"#, family.class_prefix().to_lowercase());
            let config = config(&json);
            for linear in BlockSpec::new(&config, 1).linears.values() {
                assert!(
                    linear
                        .members
                        .iter()
                        .all(|member| config.has_linear(&member.name))
                );
            }
            assert!(config.has_linear("lm_head"));
            let block = family.names().block;
            let beyond = format!("{block}.{}.{}", config.num_layers, family.names().down);
            for name in [
                "",
                "head",
                block,
                &format!("{block}.0"),
                &format!("{block}.01.fc1"),
                &beyond,
            ] {
                assert!(!config.has_linear(name), "{family:?} {name}");
            }
        }
    }

    #[test]
    fn bloom_rows_are_sorted_by_part_before_head() {
        assert_eq!(interleaved_rows(2, 2), [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
    }

    #[test]
    fn neighbours_of_rotated_rows_come_to_lie_halves_apart() {
        let json = r#"{"model_type": "glm", "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}"#;
        let spec = BlockSpec::new(&config(json), 0);
        let qkv = spec.linear(LinearId::dense(0, Role::Qkv)).unwrap();
        assert_eq!(
            qkv.members[0].rows,
            [0, 2, 1, 3, 4, 5, 6, 7, 8, 10, 9, 11, 12, 13, 14, 15]
        );
        assert_eq!(qkv.members[1].rows, [16, 18, 17, 19, 20, 21, 22, 23]);
        assert_eq!(qkv.members[2].rows, [24, 25, 26, 27, 28, 29, 30, 31]);
    }

    #[test]
    fn slopes_of_six_heads_continue_with_every_second_of_eight() {
        let expected = [-2.0, -4.0, -6.0, -8.0, -1.0, -3.0].map(f32::exp2);
        assert_eq!(alibi_slopes(6), expected);
        assert_eq!(alibi_slopes(8)[0], 0.5);
    }
}
