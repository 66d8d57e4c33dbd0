//! Dot products of four codes in 16 lanes: what each instruction set has of its own.
//!
//! Keys are stored as code + 128, unsigned, as `vpdpbusd` wants its first operand, and sums start at -128 times the sum
//! of the query's codes. AVX2 takes 128 off again and moves the query's signs to the keys: `maddubs` of
//! |query| and key is at most 2 * 127 * 127, which fits i16. Weights are 0..=127 and values signed: no trick.

use crate::float::lanes::F32x16;

/// Dot products of four codes in 16 lanes.
///
/// # Safety
/// Methods are called only from code compiled with (and running on) the instruction set of the implementation; pointers
/// are valid for a line of 64 bytes (keys, values) or four (query, weights), any alignment.
pub(super) trait Dot {
    /// 16 sums.
    type Sums: Copy;
    /// Four codes for each of 16 lanes.
    type Line: Copy;
    /// Four codes of a query in every lane.
    type Query: Copy;
    /// Four weights in every lane.
    type Weights: Copy;
    /// The sums as floats.
    type Floats: F32x16;

    unsafe fn zero() -> Self::Sums;
    /// What sums with keys start at.
    unsafe fn start(query_sum: i32) -> Self::Sums;
    unsafe fn keys(from: *const i8) -> Self::Line;
    unsafe fn values(from: *const i8) -> Self::Line;
    unsafe fn query(from: *const i8) -> Self::Query;
    unsafe fn weights(from: *const i8) -> Self::Weights;
    unsafe fn add_keys(sums: Self::Sums, query: Self::Query, keys: Self::Line) -> Self::Sums;
    unsafe fn add_values(sums: Self::Sums, weights: Self::Weights, values: Self::Line) -> Self::Sums;
    unsafe fn floats(sums: Self::Sums) -> Self::Floats;
}
