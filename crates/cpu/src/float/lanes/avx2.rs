//! Sixteen lanes in two registers of AVX2.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::f32x16::{F32x16, LANES};

/// Two 256-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(crate) __m256, pub(crate) __m256);

// SAFETY (of the block below): the trait's contract gives the instruction set and 16 elements behind pointers.
impl F32x16 for Avx2 {
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        // SAFETY: the instruction set is there.
        unsafe { Self(_mm256_set1_ps(v), _mm256_set1_ps(v)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: 16 readable elements.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: 16 readable elements.
        unsafe {
            let widen = |half: *const bf16| {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(half.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            };
            Self(widen(from), widen(from.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: 16 readable elements.
        unsafe {
            let widen = |half: *const f16| _mm256_cvtph_ps(_mm_loadu_si128(half.cast()));
            Self(widen(from), widen(from.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: 16 writable elements.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        // SAFETY: the instruction set is there.
        unsafe { Self(_mm256_mul_ps(self.0, by.0), _mm256_mul_ps(self.1, by.1)) }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the instruction set is there.
        unsafe {
            Self(
                _mm256_fmadd_ps(a.0, b.0, self.0),
                _mm256_fmadd_ps(a.1, b.1, self.1),
            )
        }
    }

    /// Four blocks of 8 x 8.
    #[inline(always)]
    unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut blocks = [[rows[0].0; 8]; 4];
        for row in 0..8 {
            (blocks[0][row], blocks[1][row]) = (rows[row].0, rows[row].1);
            (blocks[2][row], blocks[3][row]) = (rows[8 + row].0, rows[8 + row].1);
        }
        for block in &mut blocks {
            // SAFETY: the instruction set is there.
            *block = unsafe { transpose_8(*block) };
        }
        let mut out = rows;
        for row in 0..8 {
            out[row] = Self(blocks[0][row], blocks[2][row]);
            out[8 + row] = Self(blocks[1][row], blocks[3][row]);
        }
        out
    }
}

/// No closures here: one that is not inlined would lose the instruction set.
#[inline(always)]
unsafe fn transpose_8(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the instruction set is there.
    unsafe {
        // Columns 4 l + c of four rows in 128-bit lane l, then the lanes.
        let (mut quads, mut out) = (r, r);
        for i in [0, 4] {
            let (t0, t1) = (
                _mm256_unpacklo_ps(r[i], r[i + 1]),
                _mm256_unpackhi_ps(r[i], r[i + 1]),
            );
            let (t2, t3) = (
                _mm256_unpacklo_ps(r[i + 2], r[i + 3]),
                _mm256_unpackhi_ps(r[i + 2], r[i + 3]),
            );
            quads[i] = _mm256_shuffle_ps::<0x44>(t0, t2);
            quads[i + 1] = _mm256_shuffle_ps::<0xee>(t0, t2);
            quads[i + 2] = _mm256_shuffle_ps::<0x44>(t1, t3);
            quads[i + 3] = _mm256_shuffle_ps::<0xee>(t1, t3);
        }
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
            out[4 + c] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
        }
        out
    }
}
