//! Integer tiles with `maddubs`: unsigned x signed bytes to i16, sums of two.
//!
//! W4: with q <= 15 and |a8| <= 127 a result is at most 3,810 in magnitude, so eight of them (32 k) add up in i16. Then
//! one `madd` by the group scale widens to i32 and applies s2 at once. The zero points leave beforehand, all groups'
//! `s2 * zero * sum a8` of twelve tokens at a time. Per 32 multiply-adds: one `maddubs`, one addition, and an eighth of a widening.
//!
//! W8: two products of bytes may pass i16, so |w| x (a with w's sign): at most 2 * 127 * 127 = 32,258 fits; widened
//! at once by a `madd` with ones.

use std::arch::x86_64::*;

use super::layout::{GROUP_BYTES, K_STEP, LINE, PANEL, W4_LINE_K};
use super::tile::{PREFETCH_BYTES, W4Tile, W8Tile};
use crate::tensor::quantized::AVX2_TILE_ROWS;

/// Lines whose `maddubs` results fit i16 together: two results a line, eight in all.
const LINES_PER_WIDENING: usize = K_STEP / W4_LINE_K;

/// # Safety
/// As for `choose::w4`; at most [`AVX2_TILE_ROWS`] tokens, which lie side by side.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn w4(tile: &W4Tile, rows: usize, panels: usize) {
    let short_sums = tile.lines_per_group * W4_LINE_K * 127 <= i16::MAX as usize;
    // SAFETY: passed on.
    unsafe {
        match (rows, short_sums) {
            // Half a panel at a time: 4 sums of i16, 4 of i32, and the operands fit the 16 registers.
            (4, true) => [0, 1]
                .into_iter()
                .for_each(|half| w4_tile::<4, 1, true>(tile, half)),
            (4, false) => [0, 1]
                .into_iter()
                .for_each(|half| w4_tile::<4, 1, false>(tile, half)),
            (3, _) => [0, 1]
                .into_iter()
                .for_each(|half| w4_tile::<3, 1, false>(tile, half)),
            (2, _) => w4_tile::<2, 2, false>(tile, 0),
            // One token streams memory: two panels at once are more streams, and broadcasts shared.
            _ if panels == 2 => w4_tile::<1, 4, false>(tile, 0),
            _ => w4_tile::<1, 2, false>(tile, 0),
        }
    }
}

/// `ROWS` tokens times `HALVES` halves (8 rows of N) of one panel or two, from half `from` on. `SHORT`: sums of a group's codes
/// fit i16, and one `madd` takes a zero point out instead of a `mullo` of twice the cost.
#[inline(never)] // Its registers are all it needs.
#[target_feature(enable = "avx2,fma")]
unsafe fn w4_tile<const ROWS: usize, const HALVES: usize, const SHORT: bool>(tile: &W4Tile, from: usize) {
    let tile = *tile;
    let mut acc = [[_mm256_setzero_si256(); HALVES]; ROWS];
    for group in 0..tile.num_groups {
        let mut s2_pairs = [_mm256_setzero_si256(); HALVES];
        for half in 0..HALVES {
            // SAFETY: 32 bytes of scales and zero points for each group, a sum for each token and group.
            unsafe {
                let (panel, rows) = ((from + half) / 2, 8 * ((from + half) % 2));
                let scales = tile
                    .groups
                    .add((panel * tile.num_groups + group) * GROUP_BYTES + rows);
                let s2 = _mm256_cvtepu8_epi32(_mm_loadl_epi64(scales.cast()));
                let zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(scales.add(PANEL).cast()));
                // s2 in both i16 halves of its lane; its product with a zero point, at most 127 * 15, in the lower.
                s2_pairs[half] = _mm256_or_si256(s2, _mm256_slli_epi32::<16>(s2));
                let scaled_zeros = _mm256_mullo_epi16(s2, zero);
                for (m, acc) in acc.iter_mut().enumerate() {
                    let sum = _mm256_set1_epi32(*tile.group_sums.add(m * tile.num_groups + group));
                    let zeros = match SHORT {
                        true => _mm256_madd_epi16(scaled_zeros, sum),
                        false => _mm256_mullo_epi32(scaled_zeros, sum),
                    };
                    acc[half] = _mm256_sub_epi32(acc[half], zeros);
                }
            }
        }
        let first = group * tile.lines_per_group;
        let widenings = tile.lines_per_group.min(tile.lines - first) / LINES_PER_WIDENING;
        for widening in 0..widenings {
            // SAFETY: lines come in multiples of four, since K is padded to 32.
            let sums =
                unsafe { four_lines::<ROWS, HALVES>(&tile, first + widening * LINES_PER_WIDENING, from) };
            for (acc, sums) in acc.iter_mut().zip(sums) {
                for half in 0..HALVES {
                    acc[half] = _mm256_add_epi32(acc[half], _mm256_madd_epi16(sums[half], s2_pairs[half]));
                }
            }
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        for (half, acc) in acc.iter().enumerate() {
            // SAFETY: 16 sums for each token.
            unsafe {
                _mm256_storeu_si256(tile.acc.add(m * tile.acc_stride + 8 * (from + half)).cast(), *acc);
            }
        }
    }
}

/// i16 sums over 32 k: at most 8 * 3,810 in magnitude.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn four_lines<const ROWS: usize, const HALVES: usize>(
    tile: &W4Tile,
    first: usize,
    from: usize,
) -> [[__m256i; HALVES]; ROWS] {
    // The addresses of a full tile are one pointer and constants; fewer tokens may lie in a full tile too.
    let a_step = match ROWS {
        AVX2_TILE_ROWS => 4 * ROWS,
        _ => tile.a_step,
    };
    let nibble = _mm256_set1_epi8(15);
    let mut sums = [[_mm256_setzero_si256(); HALVES]; ROWS];
    for line in first..first + LINES_PER_WIDENING {
        let ahead = match HALVES {
            4 => tile.ahead(line, 2),
            _ => PREFETCH_BYTES,
        };
        for half in 0..HALVES {
            // SAFETY: the line is inside the panel; a prefetch may point anywhere.
            let packed = unsafe {
                let (panel, bytes) = ((from + half) / 2, 32 * ((from + half) % 2));
                let q = tile.q.add(panel * tile.panel_bytes + line * LINE + bytes);
                if half % 2 == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(q.wrapping_add(ahead).cast());
                }
                _mm256_loadu_si256(q.cast())
            };
            let low = _mm256_and_si256(packed, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
            for (m, sums) in sums.iter_mut().enumerate() {
                // SAFETY: 8 codes of token m at this line.
                let (first, second) = unsafe {
                    let a = tile.a.add(2 * line * a_step + 4 * m);
                    (
                        a.cast::<i32>().read_unaligned(),
                        a.add(a_step).cast::<i32>().read_unaligned(),
                    )
                };
                let low = _mm256_maddubs_epi16(low, _mm256_set1_epi32(first));
                let high = _mm256_maddubs_epi16(high, _mm256_set1_epi32(second));
                sums[half] = _mm256_add_epi16(sums[half], _mm256_add_epi16(low, high));
            }
        }
    }
    sums
}

/// # Safety
/// As for `choose::w8`, one panel.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn w8(tile: &W8Tile, rows: usize) {
    let mut done = 0;
    // SAFETY: passed on; each step takes rows that remain.
    unsafe {
        for (size, run) in [
            (4, w8_tile::<4> as unsafe fn(&W8Tile, usize)),
            (2, w8_tile::<2>),
            (1, w8_tile::<1>),
        ] {
            while rows - done >= size {
                run(tile, done);
                done += size;
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn w8_tile<const ROWS: usize>(tile: &W8Tile, row: usize) {
    // SAFETY: the tile has the rows.
    let tile = unsafe { tile.rows_from(row) };
    let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
    // These products are of w8 itself, so sums start at zero.
    if tile.start.is_null() {
        for (m, acc) in acc.iter_mut().enumerate() {
            for (half, acc) in acc.iter_mut().enumerate() {
                // SAFETY: 16 sums for each token.
                *acc = unsafe { _mm256_loadu_si256(tile.acc.add(m * tile.acc_stride + half * 8).cast()) };
            }
        }
    }
    for line in 0..tile.lines {
        for half in 0..2 {
            // SAFETY: the line is inside the panel; a prefetch may point anywhere.
            let w = unsafe {
                let w = tile.w.add(line * LINE + half * 32);
                // Few tokens come straight from memory.
                if ROWS <= 2 && half == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(PREFETCH_BYTES).cast());
                }
                _mm256_loadu_si256(w.cast())
            };
            let w = _mm256_xor_si256(w, offset);
            let magnitude = _mm256_abs_epi8(w);
            for (m, acc) in acc.iter_mut().enumerate() {
                // SAFETY: 4 codes of token m at this line.
                let a = unsafe {
                    tile.a
                        .add(line * tile.a_step + 4 * m)
                        .cast::<i32>()
                        .read_unaligned()
                };
                let signed = _mm256_sign_epi8(_mm256_set1_epi32(a), w);
                let dot = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, signed), ones);
                acc[half] = _mm256_add_epi32(acc[half], dot);
            }
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        for (half, acc) in acc.iter().enumerate() {
            // SAFETY: 16 sums for each token.
            unsafe { _mm256_storeu_si256(tile.acc.add(m * tile.acc_stride + half * 8).cast(), *acc) };
        }
    }
}
