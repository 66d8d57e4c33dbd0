//! Instruction sets to test, random numbers, hostile layers.

use dualgrain_format::{GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts, int4};
use dualgrain_kernels::cpu::{CpuBackend, Isa, Linear};
use dualgrain_kernels::{Backend, KernelError, SLICE_ROWS};

/// A backend for every instruction set and for one and three threads. Missing instruction sets are printed; those
/// named in `DUALGRAIN_REQUIRE_ISA` (comma-separated) must be there.
pub fn backends() -> Vec<CpuBackend> {
    let required = std::env::var("DUALGRAIN_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        assert!(
            Isa::by_name(name).is_ok(),
            "DUALGRAIN_REQUIRE_ISA names {name}, which this machine does not have"
        );
    }
    let mut backends = Vec::new();
    for isa in Isa::ALL {
        if isa.is_available() {
            backends.extend([1, 3].map(|num_threads| CpuBackend::with_isa(num_threads, isa).unwrap()));
        } else {
            println!("NOT TESTED: this machine has no {}", isa.name());
        }
    }
    backends
}

/// Words that name a backend in a failed assertion.
pub fn name(backend: &CpuBackend) -> String {
    format!("{} on {} threads", backend.isa().name(), backend.num_threads())
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

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

    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }
}

/// Float equality of bits, with the first difference in the message.
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

pub const HOSTILITIES: [Hostility; 4] = [
    Hostility::Random,
    Hostility::Extreme,
    Hostility::LargestScale,
    Hostility::ZeroTokens,
];

/// A valid W4 layer.
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

/// A W8 layer with many +-127.
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

/// Codes [m,k] and scales [m].
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

/// A layer of more than four slices' rows, packed in slices of different lengths.
pub fn pack_in_slices(backend: &CpuBackend, layer: &LinearWeights) -> Linear {
    let cuts = [
        0..SLICE_ROWS,
        SLICE_ROWS..3 * SLICE_ROWS,
        3 * SLICE_ROWS..layer.n(),
    ];
    let slices = cuts.into_iter().map(|rows| {
        let slice = layer.select_rows(&rows.collect::<Vec<_>>());
        Ok::<_, KernelError>(slice.unwrap())
    });
    backend.pack_slices((layer.n(), layer.k()), slices).unwrap()
}
