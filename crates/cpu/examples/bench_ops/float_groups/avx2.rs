//! Float group scales with `maddubs` on nibbles, as our own product does it: eight results (32 k) add up in i16.
//!
//! They are widened by a `madd` with ones instead of the group scale; a group's sum starts at -zero * sum of codes, becomes a
//! float and is multiplied and added. 4 tokens x 8 rows of N: 4 sums each of i16, i32 and f32 leave 4 registers.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

use super::layout::{Activations, COLUMNS, GROUP, GROUP_LINES, LINE, PANEL, PANELS, Panels, Tile, tile};

/// Rows of N in a register.
const HALF: usize = PANEL / 2;
/// Lines whose `maddubs` results fit i16 together.
const LINES_PER_WIDENING: usize = 4;
const PREFETCH_BYTES: usize = 2048;

/// Rows of a block of D.
pub fn block(a: &Activations, rows: Range<usize>, panels: Panels<'_>, d: &mut [f32]) {
    for panel in 0..PANELS {
        for tokens in a.tiles(rows.clone()) {
            let place = (tokens.start - rows.start) * COLUMNS + panel * PANEL;
            let d = d[place..][..(tokens.len() - 1) * COLUMNS + PANEL].as_mut_ptr();
            let tile = tile(a, &tokens, panels.from(panel), 0..panels.groups, d);
            // SAFETY: the device has the instruction set; the tile holds these tokens and a panel.
            unsafe {
                match tokens.len() {
                    1 => dot::<1, 2>(&tile, 0),
                    2 => dot::<2, 2>(&tile, 0),
                    3 => [0, 1].into_iter().for_each(|half| dot::<3, 1>(&tile, half)),
                    _ => [0, 1].into_iter().for_each(|half| dot::<4, 1>(&tile, half)),
                }
            }
        }
    }
}

/// `HALVES` halves of a panel, from half `from` on.
#[inline(never)] // Its registers are all it needs.
#[target_feature(enable = "avx2,fma")]
unsafe fn dot<const ROWS: usize, const HALVES: usize>(tile: &Tile, from: usize) {
    let ones = _mm256_set1_epi16(1);
    // Unrolled, the loop over them would keep broadcasts of all four on the stack.
    let widenings = black_box(GROUP_LINES / LINES_PER_WIDENING);
    let mut sums = [[_mm256_setzero_ps(); HALVES]; ROWS];
    for group in 0..tile.groups {
        let mut dots = [[_mm256_setzero_si256(); HALVES]; ROWS];
        for half in 0..HALVES {
            // SAFETY: 16 zero points and, for each token, a start for each group.
            unsafe {
                let zero = tile.zeros.add(group * PANEL + HALF * (from + half));
                let zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(zero.cast()));
                for (m, dots) in dots.iter_mut().enumerate() {
                    // Both fit i16, and the upper half of a zero point is zero.
                    let start = _mm256_set1_epi32(*tile.starts.add(group * ROWS + m));
                    dots[half] = _mm256_madd_epi16(zero, start);
                }
            }
        }
        for widening in 0..widenings {
            let first = group * GROUP_LINES + widening * LINES_PER_WIDENING;
            // SAFETY: lines of the group.
            let short = unsafe { four_lines::<ROWS, HALVES>(tile, first, from) };
            for (dots, short) in dots.iter_mut().zip(short) {
                for (dot, short) in dots.iter_mut().zip(short) {
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(short, ones));
                }
            }
        }
        for half in 0..HALVES {
            // SAFETY: 16 scales for each group.
            let scale = unsafe { _mm256_loadu_ps(tile.scales.add(group * PANEL + HALF * (from + half))) };
            for (sums, dots) in sums.iter_mut().zip(&dots) {
                sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[half]), scale, sums[half]);
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: 16 outputs and a scale for each token.
            unsafe {
                let place = tile.d.add(m * COLUMNS + HALF * (from + half));
                _mm256_storeu_ps(place, _mm256_mul_ps(*sum, _mm256_set1_ps(*tile.ta.add(m))));
            }
        }
    }
}

/// i16 sums over 32 k: at most 8 * 3,810 in magnitude.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn four_lines<const ROWS: usize, const HALVES: usize>(
    tile: &Tile,
    first: usize,
    from: usize,
) -> [[__m256i; HALVES]; ROWS] {
    let nibble = _mm256_set1_epi8(15);
    let mut sums = [[_mm256_setzero_si256(); HALVES]; ROWS];
    for line in first..first + LINES_PER_WIDENING {
        for half in 0..HALVES {
            // SAFETY: the line is inside the panel; a prefetch may point anywhere.
            let packed = unsafe {
                let q = tile.weights.add(line * LINE + LINE / 2 * (from + half));
                if half == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(q.wrapping_add(PREFETCH_BYTES).cast());
                }
                _mm256_loadu_si256(q.cast())
            };
            let low = _mm256_and_si256(packed, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
            for (m, sums) in sums.iter_mut().enumerate() {
                // SAFETY: 8 codes of token m at this line.
                let (first, second) = unsafe {
                    let a = tile.codes.cast::<i32>().add(2 * line * ROWS + m);
                    (a.read_unaligned(), a.add(ROWS).read_unaligned())
                };
                let low = _mm256_maddubs_epi16(low, _mm256_set1_epi32(first));
                let high = _mm256_maddubs_epi16(high, _mm256_set1_epi32(second));
                sums[half] = _mm256_add_epi16(sums[half], _mm256_add_epi16(low, high));
            }
        }
    }
    sums
}

/// A sum of a group's codes fits i16.
const _: () = assert!(GROUP * 127 <= i16::MAX as usize);
