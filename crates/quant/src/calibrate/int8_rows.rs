//! What INT8 leaves of a row of activations: the specification's rule, written to vectorize.

use dualgrain_device::ActivationScale;
use dualgrain_device::naive::usable_scale;

/// 1.5 * 2^23: adding and subtracting it rounds to an integer, half to even.
const ROUNDER: f32 = 12_582_912.0;

/// Quantizes a row and widens it again, with the bits of
/// [`quantize_row`](dualgrain_device::naive::quantize_row).
pub fn through_int8(row: &mut [f32], scale: ActivationScale) {
    let ta = match scale {
        ActivationScale::PerToken => row.iter().fold(0.0, |max: f32, v| max.max(v.abs())) / 127.0,
        ActivationScale::Static(ta) => ta,
    };
    let (ta, inv_scale) = usable_scale(ta);
    for value in row {
        let code = (*value * inv_scale).clamp(-127.0, 127.0);
        *value = ((code + ROUNDER) - ROUNDER) * ta;
    }
}

#[cfg(test)]
mod tests {
    use dualgrain_device::naive::quantize_row;

    use super::*;

    #[test]
    fn a_row_comes_back_as_its_codes_say() {
        let rows: [Vec<f32>; 4] = [
            (0..97).map(|i| (i as f32 * 0.77).sin() * 3.0).collect(),
            (0..64).map(|i| i as f32 - 31.5).collect(),
            vec![0.0; 5],
            vec![1e-42, -2e-42],
        ];
        for row in &rows {
            for scale in [ActivationScale::PerToken, ActivationScale::Static(0.013)] {
                let mut codes = vec![0; row.len()];
                let ta = quantize_row(row, scale, &mut codes);
                let expected: Vec<f32> = codes.iter().map(|&code| f32::from(code) * ta).collect();
                let mut own = row.clone();
                through_int8(&mut own, scale);
                assert_eq!(own, expected);
            }
        }
    }
}
