//! The matrix products of a step, for planning and profiling.

use dualgrain_format::GemmShape;

use crate::{BlockSpec, ModelConfig};

/// A product that a step runs `count` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// `qkv`, `out`, `up`, `down` or `head`.
    pub name: &'static str,
    /// Its shape.
    pub shape: GemmShape,
    /// How often a step runs it.
    pub count: usize,
}

/// The products of a step of `m` tokens; the head is counted on all of them.
pub fn products(config: &ModelConfig, m: usize) -> Vec<Product> {
    let spec = BlockSpec::new(config, 0);
    let linears = spec.linears.values();
    let mut products: Vec<Product> = linears
        .map(|linear| Product {
            name: linear.id.role.name(),
            shape: GemmShape {
                m,
                n: linear.n,
                k: linear.k,
            },
            count: config.num_layers,
        })
        .collect();
    products.push(Product {
        name: "head",
        shape: GemmShape {
            m,
            n: config.vocab_size,
            k: config.hidden_size,
        },
        count: 1,
    });
    products
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
}
