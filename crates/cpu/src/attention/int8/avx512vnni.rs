//! Dot products of four codes with the 512-bit `vpdpbusd`.

use std::arch::x86_64::*;

use super::dot::Dot;
use crate::float::lanes;

// SAFETY (of the block below): the trait's contract gives the instruction set and what lies behind pointers.
/// One 512-bit register, `vpdpbusd`.
pub(super) struct Avx512Vnni;

impl Dot for Avx512Vnni {
    type Sums = __m512i;
    type Line = __m512i;
    type Query = __m512i;
    type Weights = __m512i;
    type Floats = lanes::Avx512;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn start(query_sum: i32) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe { _mm512_set1_epi32(-128 * query_sum) }
    }

    #[inline(always)]
    unsafe fn keys(from: *const i8) -> Self::Line {
        // SAFETY: 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn values(from: *const i8) -> Self::Line {
        // SAFETY: 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn query(from: *const i8) -> Self::Query {
        // SAFETY: four readable bytes.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: four readable bytes.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn add_keys(sums: Self::Sums, query: Self::Query, keys: Self::Line) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe { _mm512_dpbusd_epi32(sums, keys, query) }
    }

    #[inline(always)]
    unsafe fn add_values(sums: Self::Sums, weights: Self::Weights, values: Self::Line) -> Self::Sums {
        // SAFETY: the instruction set is there.
        unsafe { _mm512_dpbusd_epi32(sums, weights, values) }
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> Self::Floats {
        // SAFETY: the instruction set is there.
        unsafe { lanes::Avx512(_mm512_cvtepi32_ps(sums)) }
    }
}
