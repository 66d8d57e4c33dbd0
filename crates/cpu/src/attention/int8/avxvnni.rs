//! Dot products of four codes with the 256-bit `vpdpbusd` of AVX-VNNI.

use std::arch::x86_64::*;

use super::avx2::halves;
use super::dot::Dot;
use crate::float::lanes;

// SAFETY (of the block below): the trait's contract gives the instruction set and what lies behind pointers.
/// Two 256-bit registers, `vpdpbusd`.
pub(super) struct AvxVnni;

impl Dot for AvxVnni {
    type Sums = (__m256i, __m256i);
    type Line = (__m256i, __m256i);
    type Query = __m256i;
    type Weights = __m256i;
    type Floats = lanes::Avx2;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe { (_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn start(query_sum: i32) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe {
            let start = _mm256_set1_epi32(-128 * query_sum);
            (start, start)
        }
    }

    #[inline(always)]
    unsafe fn keys(from: *const i8) -> Self::Line {
        // SAFETY: 64 readable bytes.
        unsafe { halves(from) }
    }

    #[inline(always)]
    unsafe fn values(from: *const i8) -> Self::Line {
        // SAFETY: 64 readable bytes.
        unsafe { halves(from) }
    }

    #[inline(always)]
    unsafe fn query(from: *const i8) -> Self::Query {
        // SAFETY: four readable bytes.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
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
            (
                _mm256_dpbusd_avx_epi32(sums.0, keys.0, query),
                _mm256_dpbusd_avx_epi32(sums.1, keys.1, query),
            )
        }
    }

    #[inline(always)]
    unsafe fn add_values(sums: Self::Sums, weights: Self::Weights, values: Self::Line) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe {
            (
                _mm256_dpbusd_avx_epi32(sums.0, weights, values.0),
                _mm256_dpbusd_avx_epi32(sums.1, weights, values.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> Self::Floats {
        // SAFETY: the instruction set is there.
        unsafe { lanes::Avx2(_mm256_cvtepi32_ps(sums.0), _mm256_cvtepi32_ps(sums.1)) }
    }
}
