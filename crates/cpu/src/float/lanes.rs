//! Sixteen f32 lanes in registers: one of AVX-512, two of AVX2, an array elsewhere.
//!
//! Only the matrix tile (`tile.rs`) needs it: there the number of live accumulators must be exact, which
//! auto-vectorization does not promise. Everything else is plain loops compiled per instruction set.

use half::{bf16, f16};

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
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: F32x16>(from: *const Self) -> S {
        // SAFETY: passed on to the caller.
        unsafe { S::load(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: F32x16>(from: *const Self) -> S {
        // SAFETY: passed on to the caller.
        unsafe { S::load_bf16(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: F32x16>(from: *const Self) -> S {
        // SAFETY: passed on to the caller.
        unsafe { S::load_f16(from) }
    }
}

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

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::{bf16, f16};

    use super::{F32x16, LANES};

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(pub(crate) __m256, pub(crate) __m256);

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(pub(crate) __m512);

    // SAFETY (of the blocks below): the trait's contract gives the instruction set and 16 elements behind pointers.
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

    // SAFETY (of the blocks below): as above.
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
}
