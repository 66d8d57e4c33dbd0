//! Model families as data: one description of a block, one forward for all (block.rs).
//!
//! | family | block tensors | joined |
//! |---|---|---|
//! | Llama, Mistral, Qwen2, Qwen3, Granite, SmolLM3, Gemma, OLMo, Command R | `model.layers.I.{self_attn,mlp}.*_proj` | q, k, v and gate, up |
//! | Mixtral, Qwen-MoE, OLMoE, GLM-4.5 | the same, and `block_sparse_moe.experts.E.w*`, `mlp.experts.E.*_proj`, `mlp.shared_expert*.*_proj` | q, k, v; gate, up of each expert |
//! | gpt-oss | `model.layers.I.self_attn.*_proj`, `mlp.experts.{gate_up_proj,down_proj}` of all experts | q, k, v; gate, up of each expert, rows permuted |
//! | OPT | `model.decoder.layers.I.{self_attn.*_proj,fc1,fc2}` | q, k, v |
//! | Phi-3 | the same, `qkv_proj` and `gate_up_proj` | one tensor each, in that order |
//! | GLM, GLM-4 | the same, `gate_up_proj` | q, k, v |
//! | StarCoder 2 | `model.layers.I.{self_attn.*_proj,mlp.c_fc,mlp.c_proj}` | q, k, v |
//! | BLOOM, GPT-NeoX | `transformer.h.I.{self_attention,mlp}.*`, `gpt_neox.layers.I.{attention,mlp}.*` | one tensor, its rows permuted to [q\|k\|v] |
//!
//! Where a rotary embedding turns neighbours (GLM, Command R), rows of q and k are sorted from neighbours to halves.

mod linear_specs;
mod names;
mod spec;

pub use linear_specs::{LinearSpec, Member, MixtureSpec};
pub use spec::{BlockSpec, NormSpec, Rope};
