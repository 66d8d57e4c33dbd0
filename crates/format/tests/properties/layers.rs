//! Strategies for layers that obey the number format.

use dualgrain_format::{
    FloatLinear, FloatValues, GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts, int4,
};
use half::bf16;
use proptest::collection::vec;
use proptest::prelude::*;

/// Rows of the layers: enough for more than one of everything.
const MAX_N: usize = 5;

/// Columns of the layers: two groups of 128 and a rest.
const MAX_K: usize = 300;

/// Shape and tensors of a dual-grained layer, not built yet.
#[derive(Debug, Clone)]
pub struct Ingredients {
    /// N and K.
    pub shape: (usize, usize),
    /// Weights along K that share a group scale.
    pub group_size: GroupSize,
    /// The tensors.
    pub parts: QuantizedParts,
}

impl Ingredients {
    /// Builds the layer.
    pub fn build(&self) -> Result<QuantizedLinear, dualgrain_format::FormatError> {
        QuantizedLinear::new(self.shape, self.group_size, self.parts.clone())
    }

    /// Groups in a row.
    pub fn num_groups(&self) -> usize {
        self.group_size.num_groups(self.shape.1)
    }
}

/// Any group size.
pub fn group_sizes() -> impl Strategy<Value = GroupSize> {
    proptest::sample::select(GroupSize::ALL.to_vec())
}

/// N and K.
pub fn shapes() -> impl Strategy<Value = (usize, usize)> {
    (1..=MAX_N, 1..=MAX_K)
}

/// Finite numbers that a float tensor may hold, zeros and tiny ones among them.
pub fn floats() -> impl Strategy<Value = f32> {
    use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

/// Numbers that a scale may be.
pub fn scales() -> impl Strategy<Value = f32> {
    floats().prop_map(f32::abs)
}

/// Dual-grained layers of any shape, group size, with and without bias and static scale.
pub fn ingredients() -> impl Strategy<Value = Ingredients> {
    (shapes(), group_sizes(), proptest::option::of(scales()))
        .prop_flat_map(|(shape, group_size, ta)| ingredients_of(shape, group_size, ta))
}

/// Dual-grained layers of one shape.
pub fn ingredients_of(
    (n, k): (usize, usize),
    group_size: GroupSize,
    ta: Option<f32>,
) -> impl Strategy<Value = Ingredients> {
    let groups = n * group_size.num_groups(k);
    let bias = proptest::option::of(vec(floats(), n));
    let grains = (vec(0..16_u8, groups), vec(1..128_u8, groups));
    (vec(any::<u8>(), n * k), grains, vec(scales(), n), bias).prop_map(
        move |(draws, (zeros, s2), s1, bias)| {
            let (q, zero) = packed((n, k), group_size, &draws, (&zeros, &s2));
            let parts = QuantizedParts {
                q,
                zero,
                s2,
                s1,
                bias,
                ta,
            };
            Ingredients {
                shape: (n, k),
                group_size,
                parts,
            }
        },
    )
}

/// Packed codes and zero points. Each draw becomes a code that the int8 guard allows under its zero point and scale.
fn packed(
    (n, k): (usize, usize),
    group_size: GroupSize,
    draws: &[u8],
    (zeros, s2): (&[u8], &[u8]),
) -> (Vec<u8>, Vec<u8>) {
    let groups = group_size.num_groups(k);
    let (mut q, mut packed_zeros) = (Vec::new(), Vec::new());
    for row in 0..n {
        let zeros = &zeros[row * groups..][..groups];
        let mut codes = vec![0; k];
        for (group, &zero) in zeros.iter().enumerate() {
            let reach = 127 / s2[row * groups + group];
            let (low, high) = (zero.saturating_sub(reach), (zero + reach).min(15));
            for column in group_size.range(group, k) {
                codes[column] = low + draws[row * k + column] % (high - low + 1);
            }
        }
        int4::pack_row(&codes, zeros[groups - 1], &mut q);
        int4::pack_row(zeros, 0, &mut packed_zeros);
    }
    (q, packed_zeros)
}

/// One to four linears of one scheme that may be joined.
pub fn joinable() -> impl Strategy<Value = Vec<LinearWeights>> {
    let of_shape = |k: usize, group_size: GroupSize, ta: Option<f32>| {
        let w4 = (1..=MAX_N).prop_flat_map(move |n| {
            ingredients_of((n, k), group_size, ta).prop_map(|i| LinearWeights::W4(i.build().unwrap()))
        });
        prop_oneof![
            vec(w4, 1..5),
            vec((1..=MAX_N).prop_flat_map(move |n| int8_linears((n, k), ta)), 1..5),
            vec((1..=MAX_N).prop_flat_map(move |n| float_linears((n, k))), 1..5),
        ]
    };
    (1..=MAX_K, group_sizes(), proptest::option::of(scales()))
        .prop_flat_map(move |(k, group_size, ta)| of_shape(k, group_size, ta))
}

/// INT8 layers of one shape.
pub fn int8_linears((n, k): (usize, usize), ta: Option<f32>) -> impl Strategy<Value = LinearWeights> {
    let bias = proptest::option::of(vec(floats(), n));
    (vec(-127..=127_i8, n * k), vec(scales(), n), bias)
        .prop_map(move |(w8, s1, bias)| LinearWeights::W8(Int8Linear::new((n, k), w8, s1, bias, ta).unwrap()))
}

/// Float layers of one shape, in f32 or bf16.
pub fn float_linears((n, k): (usize, usize)) -> impl Strategy<Value = LinearWeights> {
    let bias = proptest::option::of(vec(floats(), n));
    // Within bf16's range, so that rounding cannot give an infinity.
    let weights = vec(-1e30_f32..1e30, n * k);
    (weights, bias, any::<bool>()).prop_map(move |(weights, bias, half)| {
        let values = match half {
            true => FloatValues::Bf16(weights.into_iter().map(bf16::from_f32).collect()),
            false => FloatValues::F32(weights),
        };
        LinearWeights::Float(FloatLinear::new(n, k, values, bias).unwrap())
    })
}

/// Any linear.
pub fn linears() -> impl Strategy<Value = LinearWeights> {
    joinable().prop_map(|mut linears| linears.swap_remove(0))
}
