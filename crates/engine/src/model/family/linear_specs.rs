//! The linears of a block, and the experts among them.

use dualgrain_device::{ExpertChoice, RoutingRule};

use crate::{Family, FfnKind, LinearId, ModelConfig, Role};

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

/// The experts of a block; their linears are among those of the block.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureSpec {
    /// Experts.
    pub num_experts: usize,
    /// Width inside an expert.
    pub expert_size: usize,
    /// How a token's experts are chosen and weighed.
    pub rule: RoutingRule,
    /// Tensors of the router, and behind them the gate of the shared expert if it has one: `[num_experts (+ 1), hidden]` in floats.
    pub router: Vec<Member>,
    /// Tensor that is added to the scores that choose.
    pub selection_bias: Option<String>,
    /// Whether there is a feed-forward beside the experts.
    pub has_shared: bool,
}

impl MixtureSpec {
    /// How many experts a token goes to.
    pub fn choice(&self) -> ExpertChoice {
        ExpertChoice {
            num_experts: self.num_experts,
            num_chosen: self.rule.num_chosen,
        }
    }

    /// Columns of the router's logits.
    pub fn num_logits(&self) -> usize {
        self.router.iter().map(|member| member.rows.len()).sum()
    }
}

/// The linears of a block.
pub(super) fn ids(config: &ModelConfig, layer: usize) -> impl Iterator<Item = LinearId> {
    let mixture = config.mixture_of(layer);
    let of_attention = [Role::Qkv, Role::Out].map(|role| LinearId::dense(layer, role));
    let has_dense = mixture.is_none_or(|mixture| mixture.shared.is_some());
    let dense = [Role::Up, Role::Down].map(|role| LinearId::dense(layer, role));
    let num_experts = mixture.map_or(0, |mixture| mixture.num_experts);
    let experts = [Role::Up, Role::Down].into_iter().flat_map(move |role| {
        (0..num_experts).map(move |expert| LinearId {
            expert: Some(expert),
            ..LinearId::dense(layer, role)
        })
    });
    let dense = dense.into_iter().filter(move |_| has_dense);
    of_attention.into_iter().chain(dense).chain(experts)
}

/// Names of a feed-forward's linears, within a block, and the width inside it.
struct FfnNames {
    prefix: String,
    up: &'static [&'static str],
    down: &'static str,
    size: usize,
}

fn ffn_names(config: &ModelConfig, id: LinearId) -> FfnNames {
    let names = config.family.names();
    let Some(mixture) = config.mixture_of(id.layer) else {
        return FfnNames {
            prefix: String::new(),
            up: names.up,
            down: names.down,
            size: config.ffn_size,
        };
    };
    let experts = &names.experts;
    let (prefix, size) = match id.expert {
        Some(expert) => (format!("{}.{expert}.", experts.experts), mixture.expert_size),
        None => (format!("{}.", experts.shared), config.ffn_size_of(id.layer)),
    };
    FfnNames {
        prefix,
        up: experts.up,
        down: experts.down,
        size,
    }
}

pub(super) fn mixture_spec(
    config: &ModelConfig,
    layer: usize,
    full: &dyn Fn(&str) -> String,
) -> Option<MixtureSpec> {
    let mixture = config.mixture_of(layer)?;
    let names = &config.family.names().experts;
    let member = |name: &str, rows, bias| Member {
        name: full(name),
        rows,
        bias,
    };
    let experts = mixture.num_experts;
    let gate = mixture.shared.filter(|shared| shared.gated);
    let gate = gate.map(|_| member(names.shared_gate, vec![experts], false));
    let router = member(names.router, (0..experts).collect(), mixture.has_router_bias);
    Some(MixtureSpec {
        num_experts: experts,
        expert_size: mixture.expert_size,
        rule: mixture.rule,
        router: [router].into_iter().chain(gate).collect(),
        selection_bias: mixture.has_selection_bias.then(|| full(names.selection_bias)),
        has_shared: mixture.shared.is_some(),
    })
}

pub(super) fn linear_spec(config: &ModelConfig, id: LinearId, full: &dyn Fn(&str) -> String) -> LinearSpec {
    let names = config.family.names();
    let (hidden, q, kv) = (config.hidden_size, config.q_size(), config.kv_size());
    let ffn = ffn_names(config, id);
    let full = |name: &str| match id.role {
        Role::Qkv | Role::Out => full(name),
        Role::Up | Role::Down => full(&format!("{}{name}", ffn.prefix)),
    };
    let (k, members, sizes, bias): (_, &[&str], &[usize], _) = match id.role {
        Role::Qkv => (hidden, names.qkv, &[q, kv, kv], config.qkv_bias),
        Role::Out => (q, &[names.out], &[hidden], config.out_bias),
        Role::Up => match config.ffn {
            FfnKind::Gated(_) => (hidden, ffn.up, &[ffn.size, ffn.size], config.ffn_bias),
            FfnKind::Plain(_) => (hidden, ffn.up, &[ffn.size], config.ffn_bias),
        },
        Role::Down => (ffn.size, &[ffn.down], &[hidden], config.ffn_bias),
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
    let is_interleaved = matches!(config.family, Family::Bloom | Family::GptNeoX);
    if let (Role::Qkv, true, Some(member)) = (id.role, is_interleaved, members.first_mut()) {
        member.rows = interleaved_rows(config.num_heads, config.head_dim);
    }
    if let (Role::Up, Family::GptOss, Some(member)) = (id.role, config.family, members.first_mut()) {
        member.rows = gates_and_ups(ffn.size);
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

/// gpt-oss stores a gate and what it multiplies in turn; the joined matrix has all gates first.
fn gates_and_ups(size: usize) -> Vec<usize> {
    (0..size).flat_map(|gate| [gate, size + gate]).collect()
}

/// BLOOM and GPT-NeoX store [head][q, k, v][head_dim]; the joined matrix is [q|k|v] of all heads.
fn interleaved_rows(num_heads: usize, head_dim: usize) -> Vec<usize> {
    let width = num_heads * head_dim;
    (0..num_heads)
        .flat_map(|head| (0..3).map(move |part| part * width + head * head_dim))
        .flat_map(|first| first..first + head_dim)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bloom_rows_are_sorted_by_part_before_head() {
        assert_eq!(interleaved_rows(2, 2), [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
    }

    #[test]
    fn gates_come_before_what_they_multiply() {
        assert_eq!(gates_and_ups(3), [0, 3, 1, 4, 2, 5]);
    }
}
