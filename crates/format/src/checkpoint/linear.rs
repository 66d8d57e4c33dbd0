//! The tensors a linear occupies in a checkpoint, by scheme.
//!
//! | scheme | tensors of linear `X` |
//! |---|---|
//! | float | `X.weight` [N,K] |
//! | w8 | `X.w8` I8 [N,K], `X.s1` F32 [N] |
//! | w4 | `X.q` U8 [N, ceil(K/2)], `X.zero` U8 [N, ceil(groups/2)], `X.s2` U8 [N, groups], `X.s1` F32 [N] |
//!
//! `X.bias` F32 [N] and a static activation scale `X.ta` F32 [1] are present where the layer has them.

use half::bf16;
use safetensors::Dtype;

use crate::checkpoint::floats::f32_bytes;
use crate::checkpoint::writer::TensorSpec;
use crate::int4;
use crate::linear::float::FloatValues;
use crate::linear::weights::LinearWeights;
use crate::linear_scheme::LinearScheme;

/// A tensor and its bytes, little endian.
pub type TensorBytes = (TensorSpec, Vec<u8>);

/// What must be known of a linear to announce its tensors before they exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearLayout {
    /// How it will be stored.
    pub scheme: LinearScheme,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Type of `X.weight` (float only).
    pub float: Dtype,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether there is a static activation scale.
    pub static_activations: bool,
}

impl LinearLayout {
    /// The tensors of linear `name`.
    pub fn specs(&self, name: &str) -> Vec<TensorSpec> {
        let (n, k) = (self.n, self.k);
        let mut specs = match self.scheme {
            LinearScheme::Float => vec![spec(name, "weight", self.float, &[n, k])],
            LinearScheme::W8 => vec![
                spec(name, "w8", Dtype::I8, &[n, k]),
                spec(name, "s1", Dtype::F32, &[n]),
            ],
            LinearScheme::W4 { group_size } => {
                let groups = group_size.num_groups(k);
                vec![
                    spec(name, "q", Dtype::U8, &[n, int4::row_bytes(k)]),
                    spec(name, "zero", Dtype::U8, &[n, int4::row_bytes(groups)]),
                    spec(name, "s2", Dtype::U8, &[n, groups]),
                    spec(name, "s1", Dtype::F32, &[n]),
                ]
            }
        };
        if self.bias {
            specs.push(spec(name, "bias", Dtype::F32, &[n]));
        }
        if self.static_activations {
            specs.push(spec(name, "ta", Dtype::F32, &[1]));
        }
        specs
    }

    /// The layout of a linear at hand.
    pub fn of(linear: &LinearWeights) -> Self {
        let float = match linear {
            LinearWeights::Float(l) => l.weight().dtype(),
            LinearWeights::W8(_) | LinearWeights::W4(_) => Dtype::F32,
        };
        Self {
            scheme: linear.scheme(),
            n: linear.n(),
            k: linear.k(),
            float,
            bias: linear.bias().is_some(),
            static_activations: linear.ta().is_some(),
        }
    }
}

impl FloatValues {
    /// Element type in a checkpoint.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::Bf16(_) => Dtype::BF16,
        }
    }

    /// Bytes, little endian.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(v) => f32_bytes(v),
            Self::Bf16(v) => v.iter().copied().flat_map(bf16::to_le_bytes).collect(),
        }
    }
}

/// The tensors of linear `name` with their bytes.
pub fn linear_tensors(name: &str, linear: &LinearWeights) -> Vec<TensorBytes> {
    let mut bytes = match linear {
        LinearWeights::Float(l) => vec![l.weight().to_le_bytes()],
        LinearWeights::W8(l) => vec![
            l.w8().iter().map(|&w| w.cast_unsigned()).collect(),
            f32_bytes(l.s1()),
        ],
        LinearWeights::W4(l) => {
            let rows = |f: &dyn Fn(usize) -> Vec<u8>| (0..l.n()).flat_map(f).collect();
            vec![
                rows(&|row| l.q_row(row).to_vec()),
                rows(&|row| l.zero_row(row).to_vec()),
                rows(&|row| l.s2_row(row).to_vec()),
                f32_bytes(l.s1()),
            ]
        }
    };
    bytes.extend(linear.bias().map(f32_bytes));
    bytes.extend(linear.ta().map(|ta| f32_bytes(&[ta])));
    LinearLayout::of(linear)
        .specs(name)
        .into_iter()
        .zip(bytes)
        .collect()
}

fn spec(name: &str, part: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: format!("{name}.{part}"),
        dtype,
        shape: shape.to_vec(),
    }
}
