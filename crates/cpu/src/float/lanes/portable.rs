//! Sixteen lanes in an array.

use half::{bf16, f16};

use super::f32x16::{F32x16, LANES};

/// Lanes in an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable(pub(crate) [f32; LANES]);

// SAFETY (of the blocks below): the caller vouches for 16 readable or writable elements.
impl F32x16 for Portable {
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Self([v; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: 16 readable elements.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: 16 readable elements.
        Self(unsafe { from.cast::<[bf16; LANES]>().read_unaligned() }.map(bf16::to_f32))
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: 16 readable elements.
        Self(unsafe { from.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: 16 writable elements.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * by.0[lane]))
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            a.0[lane].mul_add(b.0[lane], self.0[lane])
        }))
    }

    #[inline(always)]
    unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        std::array::from_fn(|row| Self(std::array::from_fn(|lane| rows[lane].0[row])))
    }
}
