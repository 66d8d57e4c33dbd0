//! exp, tanh, erf and the activations made of them, from multiply-adds and integer shifts only.
//!
//! A C library's `expf` differs between machines in the last bit; these polynomials do not. They have no branches
//! (both sides are computed and one is selected), so the same source vectorizes on every instruction set.
//! Coefficients are minimax fits of relative error (Lawson's iteration), rounded to f32; errors against f64 are
//! asserted in `tests/exp.rs`.

use crate::Activation;

/// 1.5 * 2^23: adding it rounds a small float to the nearest integer, ties to even, in the low mantissa bits.
const ROUND_MAGIC: f32 = 12_582_912.0;

/// `e^x`; 0 below -87.3 (results that are no normal floats cost a hundred cycles each on some machines, and no softmax
/// misses them), infinity above the largest float, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND_MAGIC);
    let power = rounded - ROUND_MAGIC;
    // ln 2 in two parts: the first has few enough bits that power * part is exact.
    let r = power.mul_add(-0.693_359_4, x);
    let r = power.mul_add(2.121_944_4e-4, r);
    let p = 0.001_381_461_3_f32;
    let p = p.mul_add(r, 0.008_368_71);
    let p = p.mul_add(r, 0.041_668_39);
    let p = p.mul_add(r, 0.166_665_21);
    let p = p.mul_add(r, 0.499_999_94);
    let mantissa = p.mul_add(r * r, r) + 1.0;
    // Times 2^power: added to the exponent bits, where the low bits of `rounded` end up by the shift.
    let scaled = f32::from_bits(mantissa.to_bits().wrapping_add(rounded.to_bits() << 23));
    if x > 88.722_83 {
        f32::INFINITY
    } else if x < -87.3 {
        0.0
    } else if x.is_nan() {
        x
    } else {
        scaled
    }
}

/// Adding it rounds a float between -126 and 127 to the nearest whole number, ties to even, in the low mantissa bits, whose
/// last nine are then the exponent field of that power of two.
const ROUND_EXPONENT: f32 = 12_582_912.0 + 127.0;

/// Below `2^-64` a softmax numerator counts as nothing: it is lost in a sum of at least 1/2, and what it is multiplied by stays
/// a normal float.
const SMALLEST_POWER: f32 = -64.0;

/// `2^t` for t up to 127: exact for whole numbers, 0 below -64, NaN for NaN.
///
/// Attention counts in powers of two, so its argument needs no reduction by a rounded logarithm, and a shorter polynomial than
/// that of [`exp`] has the same error.
#[inline(always)]
pub fn exp2(t: f32) -> f32 {
    let rounded = t + ROUND_EXPONENT;
    let r = t - (rounded - ROUND_EXPONENT);
    let p = 0.001_325_594_7_f32;
    let p = p.mul_add(r, 0.009_671_229);
    let p = p.mul_add(r, 0.055_507_686);
    let p = p.mul_add(r, 0.240_222_48);
    let p = p.mul_add(r, 0.693_146_94);
    let mantissa = p.mul_add(r, 1.0);
    // A product, not a sum of exponents: it keeps NaN.
    let scaled = mantissa * f32::from_bits(rounded.to_bits() << 23);
    if t < SMALLEST_POWER { 0.0 } else { scaled }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = -0.005_704_984_f32;
    let p = p.mul_add(z, 0.020_639_084);
    let p = p.mul_add(z, -0.053_739_715);
    let p = p.mul_add(z, 0.133_314_42);
    let p = p.mul_add(z, -0.333_332_8);
    let small = (x * z).mul_add(p, x);
    let large = 1.0 - 2.0 / (exp(a + a) + 1.0);
    if a < 0.625 { small } else { large.copysign(x) }
}

/// Error function.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = 7.853_86e-5_f32;
    let p = p.mul_add(z, -0.000_801_019_3);
    let p = p.mul_add(z, 0.005_188_327_7);
    let p = p.mul_add(z, -0.026_853_813);
    let p = p.mul_add(z, 0.112_835_854);
    let p = p.mul_add(z, -0.376_126_26);
    // x * (1 + 0.128...): the one leaves the rounding of the rest below the last place of x.
    let small = x.mul_add(p.mul_add(z, 0.128_379_17), x);
    // Beyond 1: 1 - exp(log erfc(a)), the logarithm as a polynomial up to 3.95, where erf is 1 in f32.
    let b = if a > 3.95 { 3.95 } else { a };
    let l = 1.863_794e-4_f32;
    let l = l.mul_add(b, -0.002_947_660_4);
    let l = l.mul_add(b, 0.021_838_073);
    let l = l.mul_add(b, -0.103_106_774);
    let l = l.mul_add(b, -0.638_144_8);
    let l = l.mul_add(b, -1.127_089_3);
    let l = l.mul_add(b, -0.000_341_519_77);
    let large = 1.0 - exp(l);
    if a < 1.0 { small } else { large.copysign(x) }
}

/// The pointwise nonlinearity `f` of `x`.
#[inline(always)]
pub fn activation(f: Activation, x: f32) -> f32 {
    match f {
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            // sqrt(2 / pi)
            let inner = 0.797_884_6 * (x * x * x).mul_add(0.044_715, x);
            0.5 * x * (1.0 + tanh(inner))
        }
        Activation::Clamped(limit) => {
            let limit = limit.value();
            let x = if x > limit { limit } else { x };
            x * sigmoid(1.702 * x)
        }
    }
}

/// What a feed-forward makes of a gate and of what it meets: `f(gate) * up`, with the `up` that a clamped gate changes.
#[inline(always)]
pub fn gate(f: Activation, gate: f32, up: f32) -> f32 {
    let up = match f {
        Activation::Clamped(limit) => {
            let limit = limit.value();
            let up = if up > limit { limit } else { up };
            (if up < -limit { -limit } else { up }) + 1.0
        }
        _ => up,
    };
    activation(f, gate) * up
}
