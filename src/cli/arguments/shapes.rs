//! Matrices of weights that `bench gemm` can time: those of the models that other kernels were timed on, or any size.

/// A named matrix of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub struct Shape {
    pub name: String,
    pub n: usize,
    pub k: usize,
}

/// What one word of the command line stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes(#[cfg_attr(not(feature = "cuda"), allow(dead_code))] pub Vec<Shape>);

/// Name, N and K.
type Product = (&'static str, usize, usize);

/// Products of the models the peers were timed on.
const MODELS: [(&str, [Product; 4]); 2] = [
    (
        "llama-7b",
        [
            ("7B.qkv", 12_288, 4_096),
            ("7B.o", 4_096, 4_096),
            ("7B.gate_up", 22_016, 4_096),
            ("7B.down", 4_096, 11_008),
        ],
    ),
    (
        "llama-70b",
        [
            ("70B.qkv", 10_240, 8_192),
            ("70B.o", 8_192, 8_192),
            ("70B.gate_up", 57_344, 8_192),
            ("70B.down", 8_192, 28_672),
        ],
    ),
];

/// A model, a single product of one, or NxK.
pub fn shapes(name: &str) -> Result<Shapes, String> {
    let of_models = MODELS.iter().flat_map(|(model, products)| {
        products
            .iter()
            .filter(move |product| name == *model || name == product.0)
    });
    let found: Vec<Shape> = of_models.map(|&(name, n, k)| shape(name, n, k)).collect();
    if !found.is_empty() {
        return Ok(Shapes(found));
    }
    let sizes = name.split_once('x');
    match sizes.and_then(|(n, k)| Some((n.parse().ok()?, k.parse().ok()?))) {
        Some((n @ 1..=1_000_000, k @ 1..=131_071)) => Ok(Shapes(vec![shape(name, n, k)])),
        _ => Err(
            "expected llama-7b, llama-70b, one of their products (7B.o), or NxK up to 1000000x131071".into(),
        ),
    }
}

fn shape(name: &str, n: usize, k: usize) -> Shape {
    Shape {
        name: name.to_owned(),
        n,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_products_and_sizes_are_understood() {
        let Shapes(model) = shapes("llama-70b").unwrap();
        let names: Vec<&str> = model.iter().map(|shape| shape.name.as_str()).collect();
        assert_eq!(names, ["70B.qkv", "70B.o", "70B.gate_up", "70B.down"]);
        assert_eq!(shapes("7B.o").unwrap(), Shapes(vec![shape("7B.o", 4_096, 4_096)]));
        assert_eq!(
            shapes("300x400").unwrap(),
            Shapes(vec![shape("300x400", 300, 400)])
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for name in [
            "",
            "7B",
            "llama-8b",
            "0x5",
            "5x0",
            "5x",
            "x5",
            "-1x5",
            "1000001x5",
            "5x131072",
        ] {
            assert!(shapes(name).is_err(), "{name}");
        }
    }
}
