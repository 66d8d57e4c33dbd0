//! Sixteen f32 lanes, and what a matrix may be stored as.

use half::{bf16, f16};

use crate::isa::{Isa, per_isa};

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 lanes.
///
/// # Safety
/// Methods are called only from code compiled with (and running on) the instruction set of the implementation;
/// pointers are valid for 16 elements, any alignment.
pub(crate) trait F32x16: Copy {
    unsafe fn splat(v: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn load_f16(from: *const f16) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn mul(self, by: Self) -> Self;
    /// `a * b + self`, fused.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// Lane i of vector j becomes lane j of vector i.
    unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES];
}

/// What a matrix may be stored as; widening to f32 is exact.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Sixteen elements widened.
    ///
    /// # Safety
    /// As for [`F32x16`].
    unsafe fn load<S: F32x16>(from: *const Self) -> S;

    /// `to` becomes `from` widened.
    fn widen(isa: Isa, from: &[Self], to: &mut [f32]);
}

per_isa! {
    /// bf16 to f32.
    fn widen_bf16(from: &[bf16], to: &mut [f32]) = widen_each
}

#[inline(always)]
fn widen_each(from: &[bf16], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: F32x16>(from: *const Self) -> S {
        // SAFETY: passed on to the caller.
        unsafe { S::load(from) }
    }

    fn widen(_: Isa, from: &[Self], to: &mut [f32]) {
        to[..from.len()].copy_from_slice(from);
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: F32x16>(from: *const Self) -> S {
        // SAFETY: passed on to the caller.
        unsafe { S::load_bf16(from) }
    }

    fn widen(isa: Isa, from: &[Self], to: &mut [f32]) {
        widen_bf16(isa, from, to);
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: F32x16>(from: *const Self) -> S {
        // SAFETY: passed on to the caller.
        unsafe { S::load_f16(from) }
    }

    fn widen(_: Isa, from: &[Self], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
    }
}
