//! Float activations to INT8.

use crate::ActivationScale;

/// Codes of one row and its scale: `a8 = clamp(round_ties_even(x * (1 / ta)), -127, 127)`, 0 where ta = 0.
///
/// A maximum so small that `1 / ta` overflows counts as zero; NaN gives code 0.
pub fn quantize_row(x: &[f32], scale: ActivationScale, codes: &mut [i8]) -> f32 {
    let ta = match scale {
        ActivationScale::PerToken => {
            x.iter()
                .fold(0.0, |max, &v| if v.abs() > max { v.abs() } else { max })
                / 127.0
        }
        ActivationScale::Static(ta) => ta,
    };
    let (ta, inv_scale) = usable_scale(ta);
    for (code, v) in codes.iter_mut().zip(x) {
        *code = quantize_value(*v, inv_scale);
    }
    ta
}

/// A scale and its inverse; both 0 unless the inverse is finite.
#[inline(always)]
pub fn usable_scale(ta: f32) -> (f32, f32) {
    let inv_scale = 1.0 / ta;
    if ta > 0.0 && inv_scale.is_finite() {
        (ta, inv_scale)
    } else {
        (0.0, 0.0)
    }
}

#[inline(always)]
pub fn quantize_value(v: f32, inv_scale: f32) -> i8 {
    (v * inv_scale).round_ties_even().clamp(-127.0, 127.0) as i8
}
