//! Sixteen lanes in a register of AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::f32x16::{F32x16, LANES};

/// One 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(crate) __m512);

// SAFETY (of the block below): the trait's contract gives the instruction set and 16 elements behind pointers.
impl F32x16 for Avx512 {
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        // SAFETY: the instruction set is there.
        unsafe { Self(_mm512_set1_ps(v)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: 16 readable elements.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: 16 readable elements.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: 16 readable elements.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: 16 writable elements.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        // SAFETY: the instruction set is there.
        unsafe { Self(_mm512_mul_ps(self.0, by.0)) }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the instruction set is there.
        unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        // SAFETY: the instruction set is there.
        unsafe {
            // Columns 4 l + c of rows 4 g .. 4 g + 4 in 128-bit lane l of element 4 g + c.
            let (mut quads, mut out) = (rows, rows);
            for g in [0, 4, 8, 12] {
                let (a, b, c, d) = (rows[g].0, rows[g + 1].0, rows[g + 2].0, rows[g + 3].0);
                let (t0, t1) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (t2, t3) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                quads[g].0 = _mm512_shuffle_ps::<0x44>(t0, t2);
                quads[g + 1].0 = _mm512_shuffle_ps::<0xee>(t0, t2);
                quads[g + 2].0 = _mm512_shuffle_ps::<0x44>(t1, t3);
                quads[g + 3].0 = _mm512_shuffle_ps::<0xee>(t1, t3);
            }
            // Then the 4 x 4 lanes of each c.
            for c in 0..4 {
                let (q0, q1, q2, q3) = (quads[c].0, quads[4 + c].0, quads[8 + c].0, quads[12 + c].0);
                let low = (
                    _mm512_shuffle_f32x4::<0x44>(q0, q1),
                    _mm512_shuffle_f32x4::<0x44>(q2, q3),
                );
                let high = (
                    _mm512_shuffle_f32x4::<0xee>(q0, q1),
                    _mm512_shuffle_f32x4::<0xee>(q2, q3),
                );
                out[c].0 = _mm512_shuffle_f32x4::<0x88>(low.0, low.1);
                out[4 + c].0 = _mm512_shuffle_f32x4::<0xdd>(low.0, low.1);
                out[8 + c].0 = _mm512_shuffle_f32x4::<0x88>(high.0, high.1);
                out[12 + c].0 = _mm512_shuffle_f32x4::<0xdd>(high.0, high.1);
            }
            out
        }
    }
}
