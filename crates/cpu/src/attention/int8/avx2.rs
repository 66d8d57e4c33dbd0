//! Dot products of four codes with `maddubs` and `madd`.

use std::arch::x86_64::*;

use super::dot::Dot;
use crate::float::lanes;

// SAFETY (of the block below): the trait's contract gives the instruction set and what lies behind pointers.
/// Two 256-bit registers, `maddubs` and `madd`.
pub(super) struct Avx2;

impl Dot for Avx2 {
    type Sums = (__m256i, __m256i);
    type Line = (__m256i, __m256i);
    type Query = (__m256i, __m256i);
    type Weights = __m256i;
    type Floats = lanes::Avx2;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe { (_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn start(_: i32) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe { Self::zero() }
    }

    #[inline(always)]
    unsafe fn keys(from: *const i8) -> Self::Line {
        // SAFETY: 64 readable bytes.
        unsafe {
            let (keys, bit) = (halves(from), _mm256_set1_epi8(i8::MIN));
            (_mm256_xor_si256(keys.0, bit), _mm256_xor_si256(keys.1, bit))
        }
    }

    #[inline(always)]
    unsafe fn values(from: *const i8) -> Self::Line {
        // SAFETY: 64 readable bytes.
        unsafe { halves(from) }
    }

    #[inline(always)]
    unsafe fn query(from: *const i8) -> Self::Query {
        // SAFETY: four readable bytes.
        unsafe {
            let codes = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            (codes, _mm256_abs_epi8(codes))
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: four readable bytes.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn add_keys(sums: Self::Sums, query: Self::Query, keys: Self::Line) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe {
            let signed = |keys| _mm256_sign_epi8(keys, query.0);
            (
                add_pairs(sums.0, query.1, signed(keys.0)),
                add_pairs(sums.1, query.1, signed(keys.1)),
            )
        }
    }

    #[inline(always)]
    unsafe fn add_values(sums: Self::Sums, weights: Self::Weights, values: Self::Line) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe {
            (
                add_pairs(sums.0, weights, values.0),
                add_pairs(sums.1, weights, values.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> Self::Floats {
        // SAFETY: the instruction set is there.
        unsafe { lanes::Avx2(_mm256_cvtepi32_ps(sums.0), _mm256_cvtepi32_ps(sums.1)) }
    }
}

/// A line of 64 bytes.
#[inline(always)]
pub(super) unsafe fn halves(from: *const i8) -> (__m256i, __m256i) {
    // SAFETY: the instruction set is there, and 64 readable bytes.
    unsafe {
        (
            _mm256_loadu_si256(from.cast()),
            _mm256_loadu_si256(from.add(32).cast()),
        )
    }
}

/// Adds unsigned times signed in pairs, whose sums of at most 2 * 127 * 127 fit i16, and then pairs of those.
#[inline(always)]
unsafe fn add_pairs(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    // SAFETY: the instruction set is there.
    unsafe {
        let pairs = _mm256_maddubs_epi16(unsigned, signed);
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}
