//! What families call their tensors.

use crate::{Family, ModelConfig};

/// Names of a family's tensors; those of a block stand after its prefix and index.
pub(super) struct Names {
    pub block: &'static str,
    pub attn_norm: Option<&'static str>,
    pub attn_out_norm: Option<&'static str>,
    pub ffn_norm: Option<&'static str>,
    pub ffn_out_norm: Option<&'static str>,
    pub qkv: &'static [&'static str],
    pub out: &'static str,
    /// Scores of heads that belong to no key, where a family has them.
    pub sinks: &'static str,
    pub up: &'static [&'static str],
    pub down: &'static str,
    pub experts: ExpertNames,
    pub embedding: &'static str,
    pub final_norm: &'static str,
}

/// Names of what stands in the place of a feed-forward in layers with experts; other families have none of them.
pub(super) struct ExpertNames {
    pub router: &'static str,
    pub selection_bias: &'static str,
    /// What the experts' numbers follow.
    pub experts: &'static str,
    /// Within an expert, and within the shared one.
    pub up: &'static [&'static str],
    pub down: &'static str,
    pub shared: &'static str,
    pub shared_gate: &'static str,
}

const QWEN_EXPERTS: ExpertNames = ExpertNames {
    router: "mlp.gate",
    selection_bias: "mlp.gate.e_score_correction_bias",
    experts: "mlp.experts",
    up: &["gate_proj", "up_proj"],
    down: "down_proj",
    shared: "mlp.shared_expert",
    shared_gate: "mlp.shared_expert_gate",
};

const LLAMA: Names = Names {
    block: "model.layers",
    attn_norm: Some("input_layernorm"),
    attn_out_norm: None,
    ffn_norm: Some("post_attention_layernorm"),
    ffn_out_norm: None,
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.o_proj",
    sinks: "self_attn.sinks",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    experts: QWEN_EXPERTS,
    embedding: "model.embed_tokens",
    final_norm: "model.norm",
};

const OPT: Names = Names {
    block: "model.decoder.layers",
    attn_norm: Some("self_attn_layer_norm"),
    ffn_norm: Some("final_layer_norm"),
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.out_proj",
    up: &["fc1"],
    down: "fc2",
    embedding: "model.decoder.embed_tokens",
    final_norm: "model.decoder.final_layer_norm",
    ..LLAMA
};

const BLOOM: Names = Names {
    block: "transformer.h",
    qkv: &["self_attention.query_key_value"],
    out: "self_attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    embedding: "transformer.word_embeddings",
    final_norm: "transformer.ln_f",
    ..LLAMA
};

const GPT_NEOX: Names = Names {
    block: "gpt_neox.layers",
    qkv: &["attention.query_key_value"],
    out: "attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    embedding: "gpt_neox.embed_in",
    final_norm: "gpt_neox.final_layer_norm",
    ..LLAMA
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

const GLM4: Names = Names {
    attn_out_norm: Some("post_self_attn_layernorm"),
    ffn_out_norm: Some("post_mlp_layernorm"),
    ..GLM
};

/// Gemma 2 and 3: what Llama calls the norm before the feed-forward is that behind attention.
const GEMMA2: Names = Names {
    attn_out_norm: Some("post_attention_layernorm"),
    ffn_norm: Some("pre_feedforward_layernorm"),
    ffn_out_norm: Some("post_feedforward_layernorm"),
    ..LLAMA
};

const OLMO2: Names = Names {
    attn_norm: None,
    attn_out_norm: Some("post_attention_layernorm"),
    ffn_norm: None,
    ffn_out_norm: Some("post_feedforward_layernorm"),
    ..LLAMA
};

/// One norm for attention and feed-forward, which are parallel.
const COHERE: Names = Names {
    ffn_norm: Some("input_layernorm"),
    ..LLAMA
};

const STARCODER2: Names = Names {
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    ..LLAMA
};

const MIXTRAL: Names = Names {
    experts: ExpertNames {
        router: "block_sparse_moe.gate",
        experts: "block_sparse_moe.experts",
        up: &["w1", "w3"],
        down: "w2",
        ..QWEN_EXPERTS
    },
    ..LLAMA
};

const GLM4_MOE: Names = Names {
    experts: ExpertNames {
        shared: "mlp.shared_experts",
        ..QWEN_EXPERTS
    },
    ..LLAMA
};

const GPT_OSS: Names = Names {
    experts: ExpertNames {
        router: "mlp.router",
        up: &["gate_up_proj"],
        ..QWEN_EXPERTS
    },
    ..LLAMA
};

impl Family {
    pub(super) fn names(self) -> &'static Names {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 | Self::Granite | Self::SmolLm3 => &LLAMA,
            Self::Gemma | Self::Qwen2Moe | Self::Qwen3Moe | Self::Olmoe => &LLAMA,
            Self::Mixtral => &MIXTRAL,
            Self::Glm4Moe => &GLM4_MOE,
            Self::GptOss => &GPT_OSS,
            Self::Gemma2 | Self::Gemma3 => &GEMMA2,
            Self::Olmo2 | Self::Olmo3 => &OLMO2,
            Self::Cohere | Self::Cohere2 => &COHERE,
            Self::Phi3 => &PHI3,
            Self::Starcoder2 => &STARCODER2,
            Self::Glm => &GLM,
            Self::Glm4 => &GLM4,
            Self::Opt => &OPT,
            Self::Bloom => &BLOOM,
            Self::GptNeoX => &GPT_NEOX,
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
    /// Whether the checkpoint has a linear of that name (without `.weight`) in a block, or as the head.
    pub fn has_linear(&self, name: &str) -> bool {
        let names = self.family.names();
        let in_block = name
            .strip_prefix(names.block)
            .and_then(|rest| rest.strip_prefix('.'));
        let Some((layer, linear)) = in_block.and_then(|rest| rest.split_once('.')) else {
            return name == self.family.head_name();
        };
        let known = |layer: usize| layer < self.num_layers && self.has_linear_in(layer, linear);
        layer
            .parse()
            .is_ok_and(|number: usize| number.to_string() == layer && known(number))
    }

    fn has_linear_in(&self, layer: usize, linear: &str) -> bool {
        let names = self.family.names();
        let is_of_attention = names.qkv.contains(&linear) || names.out == linear;
        let Some(mixture) = self.mixture_of(layer) else {
            return is_of_attention || names.up.contains(&linear) || names.down == linear;
        };
        let experts = &names.experts;
        let within = |name: &str| experts.up.contains(&name) || experts.down == name;
        let part = |prefix: &str| {
            linear
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('.'))
        };
        let is_of_expert = part(experts.experts)
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(expert, name)| {
                let number = expert
                    .parse()
                    .ok()
                    .filter(|number: &usize| number.to_string() == expert);
                number.is_some_and(|number| number < mixture.num_experts) && within(name)
            });
        let is_of_shared = mixture.shared.is_some() && part(experts.shared).is_some_and(within);
        is_of_attention || is_of_expert || is_of_shared
    }
}
