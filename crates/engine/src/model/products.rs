//! The matrix products of a step, for planning and profiling.

use dualgrain_device::ExpertChoice;
use dualgrain_format::GemmShape;

use crate::{BlockSpec, ModelConfig, Role};

/// A product that a step runs `count` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// `qkv`, `out`, `up`, `down`, `expert_up`, `expert_down` or `head`.
    pub name: &'static str,
    /// Its shape.
    pub shape: GemmShape,
    /// How often a step runs it.
    pub count: usize,
    /// How many linears of that N and K the model holds.
    pub num_linears: usize,
    /// Of a linear of experts: how these are chosen.
    pub choice: Option<ExpertChoice>,
}

impl Product {
    /// Multiply-adds of a step.
    pub fn multiply_adds(&self) -> f64 {
        let sizes = [self.count, self.shape.m, self.shape.n, self.shape.k];
        sizes.map(|size| size as f64).iter().product()
    }
}

/// The products of a step of `m` tokens; the head is counted on all of them. Routers are floats and left out.
///
/// Of the experts as many have a product as tokens choose when each choice is as likely as any other, with the rows that all choices
/// give each of these.
pub fn products(config: &ModelConfig, m: usize) -> Vec<Product> {
    let mut products: Vec<Product> = Vec::new();
    for (spec, count) in kinds_of_blocks(config) {
        for linear in spec.linears.values() {
            let role = linear.id.role;
            let (name, groups, choice) = match (linear.id.expert, &spec.mixture) {
                (None, _) | (_, None) => (role.name(), [(1, m), (0, 0)], None),
                (Some(0), Some(mixture)) => {
                    let choice = mixture.choice();
                    let name = if role == Role::Up {
                        "expert_up"
                    } else {
                        "expert_down"
                    };
                    (name, choice.of_tokens(m), Some(choice))
                }
                // All are alike.
                (Some(_), Some(_)) => continue,
            };
            let num_linears = count * choice.map_or(1, |choice| choice.num_experts);
            for (each, m) in groups.into_iter().filter(|&(each, _)| each > 0) {
                let shape = GemmShape {
                    m,
                    n: linear.n,
                    k: linear.k,
                };
                let count = count * each;
                let alike = |known: &&mut Product| (known.name, known.shape) == (name, shape);
                match products.iter_mut().find(alike) {
                    Some(known) => {
                        known.count += count;
                        known.num_linears += num_linears;
                    }
                    None => products.push(Product {
                        name,
                        shape,
                        count,
                        num_linears,
                        choice,
                    }),
                }
            }
        }
    }
    products.push(Product {
        name: "head",
        shape: GemmShape {
            m,
            n: config.vocab_size,
            k: config.hidden_size,
        },
        count: 1,
        num_linears: 1,
        choice: None,
    });
    products
}

/// The kinds of blocks that a model has, with experts and without, and how many there are of each.
pub fn kinds_of_blocks(config: &ModelConfig) -> Vec<(BlockSpec, usize)> {
    let sparse = |layer: &usize| config.mixture_of(*layer).is_some();
    let (with, without): (Vec<usize>, Vec<usize>) = (0..config.num_layers).partition(sparse);
    let kind = |layers: Vec<usize>| Some((BlockSpec::new(config, *layers.first()?), layers.len()));
    [without, with].into_iter().filter_map(kind).collect()
}

/// The kind among [`kinds_of_blocks`] that block `layer` is of.
pub fn kind_of_block<'k>(
    kinds: &'k [(BlockSpec, usize)],
    config: &ModelConfig,
    layer: usize,
) -> Option<&'k BlockSpec> {
    let has_experts = config.mixture_of(layer).is_some();
    let mut specs = kinds.iter().map(|(spec, _)| spec);
    specs.find(|spec| spec.mixture.is_some() == has_experts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_hold_every_weight_of_the_linears_once() {
        let json = r#"{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_hidden_layers": 3, "intermediate_size": 96, "vocab_size": 100}"#;
        let products = products(&ModelConfig::from_json(json).unwrap(), 5);
        let weights: usize = products.iter().map(|p| p.count * p.shape.n * p.shape.k).sum();
        assert_eq!(weights, 3 * (64 * 128 + 64 * 64 + 64 * 192 + 96 * 64) + 6_400);
        assert!(products.iter().all(|p| p.shape.m == 5));
    }

    #[test]
    fn experts_have_the_rows_that_tokens_send_them() {
        let json = r#"{"model_type": "qwen3_moe", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "num_hidden_layers": 3, "intermediate_size": 96, "moe_intermediate_size": 32, "num_experts": 16, "num_experts_per_tok": 4,
            "mlp_only_layers": [1], "vocab_size": 100}"#;
        let config = ModelConfig::from_json(json).unwrap();
        let of = |m: usize, name: &str| {
            let found = products(&config, m)
                .into_iter()
                .find(|product| product.name == name);
            let product = found.unwrap();
            (product.shape.m, product.shape.n, product.shape.k, product.count)
        };
        assert_eq!(of(1, "expert_up"), (1, 64, 64, 2 * 4));
        assert_eq!(of(1, "expert_down"), (1, 64, 32, 2 * 4));
        assert_eq!(of(1_000, "expert_up"), (250, 64, 64, 2 * 16));
        assert_eq!(of(1, "up"), (1, 192, 64, 1));
        assert_eq!(of(1, "qkv").3, 3);
    }
}
