//! One block of any family as data.

use std::collections::BTreeMap;

use dualgrain_device::AttentionParams;

use super::linear_specs::{LinearSpec, MixtureSpec, ids, linear_spec, mixture_spec};

use crate::{EngineError, FfnKind, LinearId, ModelConfig, NormKind, Position, QkNorm};

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
    /// Width inside the feed-forward that every token goes through; 0 where there are experts alone.
    pub ffn_size: usize,
    /// The experts, in the place of one feed-forward or beside it.
    pub mixture: Option<MixtureSpec>,
    /// Norm before attention; without one, attention reads the stream itself.
    pub attn_norm: Option<NormSpec>,
    /// Norm of what attention adds to the stream.
    pub attn_out_norm: Option<NormSpec>,
    /// Norm before the feed-forward; without one, it reads the stream itself.
    pub ffn_norm: Option<NormSpec>,
    /// Norm of what the feed-forward adds to the stream.
    pub ffn_out_norm: Option<NormSpec>,
    /// Attention and feed-forward read the stream as the block finds it, and both are added.
    pub parallel: bool,
    /// RMS norms of queries and of keys, of heads or of whole rows as their lengths say.
    pub qk_norm: Option<[NormSpec; 2]>,
    /// By what queries and keys are rotated, if they are.
    pub rope: Option<Rope>,
    /// Kind of feed-forward.
    pub ffn: FfnKind,
    /// The input of Down is transformed in blocks of so many channels.
    pub hadamard_down: Option<usize>,
    /// Scale, window and slopes of the attention; its sinks once the block is loaded.
    pub attention: AttentionParams,
    /// Tensor of the attention's sinks, one for each query head.
    pub sinks: Option<String>,
    /// The linears, in order of execution.
    pub linears: BTreeMap<LinearId, LinearSpec>,
}

/// Which of a model's rotary embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rope {
    /// That of [`ModelConfig::position`].
    Global,
    /// That of [`ModelConfig::local_rope`].
    Local,
}

/// A norm's tensors: `name.weight`, and `name.bias` where it has one.
#[derive(Debug, Clone, PartialEq)]
pub struct NormSpec {
    /// Tensor name without `.weight`.
    pub name: String,
    /// Kind.
    pub kind: NormKind,
    /// Whether `name.bias` exists.
    pub bias: bool,
    /// Elements.
    pub len: usize,
    /// Epsilon.
    pub eps: f32,
    /// What is added to the stored weight.
    pub offset: f32,
    /// What weight (after the addition) and bias are multiplied by.
    pub scale: f32,
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

    fn norm_spec(&self, name: String) -> NormSpec {
        NormSpec {
            name,
            kind: self.norm,
            bias: self.norm == NormKind::Layer && self.norm_bias,
            len: self.hidden_size,
            eps: self.stream_norm_eps(),
            offset: self.norm_offset,
            scale: 1.0,
        }
    }
}

impl BlockSpec {
    /// The description of block `layer`.
    pub fn new(config: &ModelConfig, layer: usize) -> Self {
        let names = config.family.names();
        let full = |name: &str| format!("{}.{layer}.{name}", names.block);
        let norm = |name: Option<&str>| name.map(|name| config.norm_spec(full(name)));
        let out_norm = |name: Option<&str>| {
            norm(name).map(|spec| NormSpec {
                scale: (1.0 / config.stream_divisor) as f32,
                eps: config.norm_eps,
                ..spec
            })
        };
        Self {
            layer,
            hidden_size: config.hidden_size,
            head_dim: config.head_dim,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            ffn_size: config.ffn_size_of(layer),
            mixture: mixture_spec(config, layer, &full),
            attn_norm: norm(names.attn_norm),
            attn_out_norm: out_norm(names.attn_out_norm),
            ffn_norm: norm(names.ffn_norm),
            ffn_out_norm: out_norm(names.ffn_out_norm),
            parallel: config.parallel,
            qk_norm: qk_norm(config, &full),
            rope: rope(config, layer),
            ffn: config.ffn,
            hadamard_down: config.hadamard_down,
            attention: attention_params(config, layer),
            sinks: config.attention_sinks.then(|| full(names.sinks)),
            linears: ids(config, layer)
                .map(|id| (id, linear_spec(config, id, &full)))
                .collect(),
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

    /// All norms of the block.
    pub fn norms(&self) -> impl Iterator<Item = &NormSpec> {
        let of_stream = [
            &self.attn_norm,
            &self.attn_out_norm,
            &self.ffn_norm,
            &self.ffn_out_norm,
        ];
        let of_heads = self.qk_norm.iter().flatten();
        of_stream.into_iter().flatten().chain(of_heads)
    }

    /// Whether attention and feed-forward read one norm's result.
    pub fn shares_norm(&self) -> bool {
        self.attn_norm.is_some() && self.attn_norm == self.ffn_norm
    }
}

/// Norms of queries and keys: of [`NormSpec::len`] elements at a time.
fn qk_norm(config: &ModelConfig, full: &dyn Fn(&str) -> String) -> Option<[NormSpec; 2]> {
    let lens = match config.qk_norm {
        QkNorm::None => return None,
        QkNorm::Heads => [config.head_dim; 2],
        QkNorm::Rows => [config.q_size(), config.kv_size()],
    };
    let norm = |name: &str, len: usize| NormSpec {
        name: full(name),
        kind: NormKind::Rms,
        bias: false,
        len,
        eps: config.norm_eps,
        offset: config.norm_offset,
        scale: 1.0,
    };
    Some([
        norm("self_attn.q_norm", lens[0]),
        norm("self_attn.k_norm", lens[1]),
    ])
}

fn rope(config: &ModelConfig, layer: usize) -> Option<Rope> {
    let is_rotated = config.rotated_layers.get(layer).is_none_or(|&rotated| rotated);
    if !is_rotated || !matches!(config.position, Position::Rope(_)) {
        return None;
    }
    let has_window = config.sliding_windows.get(layer).copied().flatten().is_some();
    match config.local_rope {
        Some(_) if has_window => Some(Rope::Local),
        _ => Some(Rope::Global),
    }
}

fn attention_params(config: &ModelConfig, layer: usize) -> AttentionParams {
    let alibi = config.position == Position::Alibi;
    let usual = 1.0 / (config.head_dim as f64).sqrt();
    AttentionParams {
        num_heads: config.num_heads,
        scale: config.attention_scale.unwrap_or(usual as f32),
        soft_cap: config.score_cap,
        sliding_window: config.sliding_windows.get(layer).copied().flatten(),
        alibi_slopes: alibi.then(|| alibi_slopes(config.num_heads)),
        sinks: None,
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
    use crate::{Family, Role};

    fn config(json: &str) -> ModelConfig {
        ModelConfig::from_json(json).unwrap()
    }

    #[test]
    fn members_partition_the_rows_of_every_linear() {
        for family in Family::ALL {
            let json = format!(r#"{{"model_type": "{}", "head_dim": 128}}"#, family.model_type());
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
            let json = format!(r#"{{"model_type": "{}", "head_dim": 128}}"#, family.model_type());
            let config = config(&json);
            for linear in BlockSpec::new(&config, 1).linears.values() {
                assert!(
                    linear
                        .members
                        .iter()
                        .all(|member| config.has_linear(&member.name))
                );
            }
            assert!(config.has_linear(family.head_name()));
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
