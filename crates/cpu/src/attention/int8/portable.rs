//! Dot products of four codes in arrays of 16 lanes.

use super::dot::Dot;
use crate::float::lanes::{self, LANES};
use crate::kv_cache::element::QUAD;

/// Lanes in arrays.
pub(super) struct Portable;

// SAFETY (of the block below): the caller vouches for a line or four bytes behind pointers.
impl Dot for Portable {
    type Sums = [i32; LANES];
    type Line = [[i8; QUAD]; LANES];
    type Query = [i8; QUAD];
    type Weights = [i8; QUAD];
    type Floats = lanes::Portable;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn start(_: i32) -> Self::Sums {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn keys(from: *const i8) -> Self::Line {
        // SAFETY: a line of 64 bytes.
        let stored = unsafe { from.cast::<Self::Line>().read_unaligned() };
        stored.map(|quad| quad.map(|byte| byte ^ i8::MIN))
    }

    #[inline(always)]
    unsafe fn values(from: *const i8) -> Self::Line {
        // SAFETY: a line of 64 bytes.
        unsafe { from.cast::<Self::Line>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn query(from: *const i8) -> Self::Query {
        // SAFETY: four codes.
        unsafe { from.cast::<Self::Query>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: four codes.
        unsafe { from.cast::<Self::Weights>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add_keys(sums: Self::Sums, query: Self::Query, keys: Self::Line) -> Self::Sums {
        // SAFETY: no pointers, no instruction set.
        unsafe { Self::add_values(sums, query, keys) }
    }

    #[inline(always)]
    unsafe fn add_values(mut sums: Self::Sums, weights: Self::Weights, values: Self::Line) -> Self::Sums {
        for (sum, quad) in sums.iter_mut().zip(values) {
            for (weight, code) in weights.iter().zip(quad) {
                *sum += i32::from(*weight) * i32::from(code);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> Self::Floats {
        lanes::Portable(sums.map(|sum| sum as f32))
    }
}
