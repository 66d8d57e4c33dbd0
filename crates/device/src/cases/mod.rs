//! Random numbers and hostile layers that the tests and benches of every device share.

mod mixture;

use dualgrain_format::{GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts, int4};

pub use mixture::{ExpertWeights, MixtureCase, mixture_cases};

/// Random numbers that repeat with their seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    #[allow(
        clippy::should_implement_trait,
        reason = "a generator of numbers, not an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..bound.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Uniform in -1..1, with a few exact zeros.
    pub fn float(&mut self) -> f32 {
        if self.below(97) == 0 {
            0.0
        } else {
            (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    /// `len` numbers as [`Self::float`] gives them.
    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }
}

/// Float equality of bits.
///
/// # Panics
/// On the first difference, with its place.
#[track_caller]
pub fn assert_same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert_eq!(
            g.to_bits(),
            e.to_bits(),
            "{what}: element {i} is {g:?}, expected {e:?}"
        );
    }
}

/// How extreme a layer and its activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostility {
    /// Uniform codes, any group scale the guard allows.
    Random,
    /// q in {0, 15}, zero in {0, 15}, the largest group scale (8), codes of activations +-127.
    Extreme,
    /// s2 = 127 with q within one of zero, activations +-127.
    LargestScale,
    /// s2 = 1, all-zero tokens between others.
    ZeroTokens,
    /// q = 15, zero = 0, s2 = 8, and a token's codes all 127 or all -127: no sum of products can be larger.
    OneSign,
}

/// Those that a layer of any length can have.
pub const HOSTILITIES: [Hostility; 4] = [
    Hostility::Random,
    Hostility::Extreme,
    Hostility::LargestScale,
    Hostility::ZeroTokens,
];

/// A valid W4 layer `[n,k]`.
///
/// # Panics
/// Never: its parts fit by construction.
pub fn w4_layer(
    r: &mut Random,
    (n, k): (usize, usize),
    group_size: GroupSize,
    how: Hostility,
) -> QuantizedLinear {
    let groups = group_size.num_groups(k);
    let (mut q, mut zero, mut s2) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        let (mut codes, mut zeros) = (vec![0u8; k], vec![0u8; groups]);
        for (group, zero) in zeros.iter_mut().enumerate() {
            let (scale, z) = match how {
                Hostility::Random => (1 + r.below(127), r.below(16)),
                Hostility::Extreme => (8, 15 * r.below(2)),
                Hostility::LargestScale => (127, r.below(16)),
                Hostility::ZeroTokens => (1, r.below(16)),
                Hostility::OneSign => (8, 0),
            };
            let reach = 127 / scale;
            let (low, high) = (z.saturating_sub(reach), (z + reach).min(15));
            *zero = z as u8;
            s2.push(scale as u8);
            for column in group_size.range(group, k) {
                codes[column] = match how {
                    Hostility::Extreme => [low, high][r.below(8).min(1)],
                    Hostility::OneSign => high,
                    _ => low + r.below(high - low + 1),
                } as u8;
            }
        }
        int4::pack_row(&codes, zeros[groups - 1], &mut q);
        int4::pack_row(&zeros, 0, &mut zero);
    }
    let bias = (r.below(2) == 0).then(|| r.floats(n));
    let s1 = (0..n).map(|_| r.float().abs() * 0.01).collect();
    QuantizedLinear::new(
        (n, k),
        group_size,
        QuantizedParts {
            q,
            zero,
            s2,
            s1,
            bias,
            ta: None,
        },
    )
    .unwrap()
}

/// A W8 layer `[n,k]` with many +-127.
///
/// # Panics
/// Never: its parts fit by construction.
pub fn w8_layer(r: &mut Random, (n, k): (usize, usize)) -> Int8Linear {
    let weight = |r: &mut Random| match r.below(4) {
        0 => 127,
        1 => -127,
        _ => (r.below(255) as i32 - 127) as i8,
    };
    let w8 = (0..n * k).map(|_| weight(r)).collect();
    let bias = (r.below(2) == 0).then(|| r.floats(n));
    let s1 = r.floats(n).iter().map(|s| s.abs()).collect();
    Int8Linear::new((n, k), w8, s1, bias, None).unwrap()
}

/// Codes `[m,k]` and scales `[m]`.
pub fn activations(r: &mut Random, (m, k): (usize, usize), how: Hostility) -> (Vec<i8>, Vec<f32>) {
    let mut codes = Vec::new();
    let mut scales = Vec::new();
    for row in 0..m {
        let zero_token = how == Hostility::ZeroTokens && row % 2 == 0;
        scales.push(if zero_token { 0.0 } else { r.float().abs() });
        codes.extend((0..k).map(|_| match how {
            _ if zero_token => 0,
            Hostility::Extreme | Hostility::LargestScale => [127, -127, 127][r.below(3)],
            Hostility::OneSign => [127, -127][row % 2],
            _ => (r.below(255) as i32 - 127) as i8,
        }));
    }
    (codes, scales)
}

/// The layer as `LinearWeights`.
pub fn weights(layer: &QuantizedLinear) -> LinearWeights {
    LinearWeights::W4(layer.clone())
}
