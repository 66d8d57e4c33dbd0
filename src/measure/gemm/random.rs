//! Random numbers, the same every run, and layers and choices made of them.

use anyhow::Result;
use dualgrain::format::{GroupSize, QuantizedLinear, QuantizedParts, int4};
use half::bf16;

/// Numbers that look random, the same every run.
pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// bf16 numbers around 0, nearly normal.
pub fn random_bf16(len: usize) -> Vec<u16> {
    let mut next = random(len as u64);
    let uniform = |bits: u64| (bits & 0xfff) as f32 / 2048.0 - 1.0;
    let mut normal = || {
        let bits = next();
        bf16::from_f32(uniform(bits) + uniform(bits >> 12) + uniform(bits >> 24)).to_bits()
    };
    (0..len).map(|_| normal()).collect()
}

/// Bytes of int8 numbers over the whole range.
pub fn random_bytes(len: usize) -> Vec<u8> {
    let mut next = random(len as u64);
    (0..len)
        .map(|_| ((next() % 255) as i32 - 127) as i8 as u8)
        .collect()
}

/// At most `count` indices below `len`, the first and the last among them, with odd steps between.
pub fn spread(len: usize, count: usize) -> Vec<usize> {
    let mut next = random((len + count) as u64);
    let mut picked: Vec<usize> = match len <= count {
        true => (0..len).collect(),
        false => (0..count - 2)
            .map(|_| (next() % len as u64) as usize)
            .chain([0, len - 1])
            .collect(),
    };
    picked.sort_unstable();
    picked.dedup();
    picked
}

/// Codes over the whole range, zero points around the middle, group scales that keep the int8 guard.
pub fn random_layer((n, k): (usize, usize), size: GroupSize) -> Result<QuantizedLinear> {
    let mut next = random((n * k) as u64);
    let groups = size.num_groups(k);
    let (mut q, mut zero, mut s2) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        let zeros: Vec<u8> = (0..groups).map(|_| 6 + (next() % 4) as u8).collect();
        s2.extend((0..groups).map(|_| 9 + (next() % 5) as u8));
        let mut codes: Vec<u8> = (0..k).map(|_| (next() & 15) as u8).collect();
        keep_guard(&mut codes, &zeros, &s2[s2.len() - groups..], size);
        int4::pack_row(&codes, zeros[groups - 1], &mut q);
        int4::pack_row(&zeros, 0, &mut zero);
    }
    let s1 = (0..n).map(|_| 1e-4 + (next() & 0xffff) as f32 * 1e-7).collect();
    let parts = QuantizedParts {
        q,
        zero,
        s2,
        s1,
        bias: None,
        ta: None,
    };
    Ok(QuantizedLinear::new((n, k), size, parts)?)
}

/// Moves codes to where scale times distance from the zero point fits an int8.
fn keep_guard(codes: &mut [u8], zeros: &[u8], scales: &[u8], size: GroupSize) {
    let k = codes.len();
    for (group, (&zero, &scale)) in zeros.iter().zip(scales).enumerate() {
        let reach = 127 / scale;
        for code in &mut codes[size.range(group, k)] {
            *code = (*code).clamp(zero.saturating_sub(reach), (zero + reach).min(15));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_layers_are_valid_for_every_group_size() {
        for size in [32, 64, 128].map(|size| GroupSize::new(size).unwrap()) {
            let layer = random_layer((3, 300), size).unwrap();
            assert_eq!((layer.n(), layer.k()), (3, 300));
        }
        assert!(random_layer((3, 300), GroupSize::WholeRow).is_ok());
    }

    #[test]
    fn checked_outputs_reach_from_first_to_last() {
        assert_eq!(spread(3, 48), [0, 1, 2]);
        let picked = spread(100_000, 64);
        assert_eq!((picked[0], picked[picked.len() - 1]), (0, 99_999));
        assert!(picked.len() > 60 && picked.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
