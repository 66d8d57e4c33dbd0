//! What one weight is.
//!
//! ```text
//! w[n,k]  ~= s1[n] * w8[n,k]                       f32: the channel scale times an integer
//! w8[n,k]  = s2[n,g] * (q[n,k] - zero[n,g])        g: the group of column k
//!
//! q     0..=15    4-bit code, one a weight
//! zero  0..=15    zero point, one a group
//! s2    1..=127   group scale, an INTEGER, one a group
//! s1    f32       channel scale, one a row
//! ```
//!
//! The group scale is an integer, so a product of a model is a sum of INT8 products and only its end is multiplied by a
//! float. DGQ, arXiv 2310.04836, section 3. `linear/quantized.rs` holds the arrays of a whole layer.

use std::ops::RangeInclusive;

/// Where every `w8` lies. -128 is left out: its magnitude has no place in an i8, and products count on both signs alike.
pub const INT8_RANGE: RangeInclusive<i32> = -127..=127;

/// Values a group scale may have.
pub const GROUP_SCALES: RangeInclusive<u8> = 1..=127;

/// `s2 * (q - zero)`: the integer that stands for a weight. It lies in [`INT8_RANGE`] in every layer that
/// [`QuantizedLinear::new`](crate::QuantizedLinear::new) accepts.
pub const fn int8_weight(q: u8, zero: u8, s2: u8) -> i32 {
    s2 as i32 * (q as i32 - zero as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_at_its_zero_point_stands_for_zero() {
        assert_eq!(int8_weight(8, 8, 127), 0);
        assert_eq!((int8_weight(15, 0, 8), int8_weight(0, 15, 8)), (120, -120));
    }
}
