//! Integer tiles with the 256-bit `vpdpbusd` of AVX-VNNI: a panel is two registers, rows 0..8 and 8..16.
//!
//! W4: up to 4 tokens at a time. One token reads two panels at once, and up to two sum low and high nibbles apart: a product waits 5
//! cycles for the one before it in the same register, and with one token there would be but two registers of sums.
//! W8: 6 tokens x 1 panel = 12 accumulators, 2 registers of weights, 1 broadcast.

use std::arch::x86_64::*;

use super::layout::{GROUP_BYTES, LINE, PANEL, group_lines};
use super::tile::{PREFETCH_BYTES, W4Tile, W8Tile};

/// Registers of up to two panels: (panel, half).
const HALVES: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// # Safety
/// As for `choose::w4`.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn w4(tile: &W4Tile, rows: usize, panels: usize) {
    // SAFETY: passed on.
    unsafe {
        match (rows, panels) {
            (1, 2) => w4_tile::<1, 2>(tile, 0, 0),
            _ => (0..panels).for_each(|panel| w4_panel(tile, panel, rows)),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn w4_panel(tile: &W4Tile, panel: usize, rows: usize) {
    let mut done = 0;
    // SAFETY: passed on; each step takes rows that remain.
    unsafe {
        for (size, run) in [
            (4, w4_tile::<4, 1> as unsafe fn(&W4Tile, usize, usize)),
            (2, w4_tile::<2, 1>),
            (1, w4_tile::<1, 1>),
        ] {
            while rows - done >= size {
                run(tile, panel, done);
                done += size;
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn w4_tile<const ROWS: usize, const PANELS: usize>(tile: &W4Tile, panel: usize, row: usize) {
    // SAFETY: the tile has the panels and rows.
    let tile = unsafe { tile.panel(panel).rows_from(row) };
    let nibble = _mm256_set1_epi8(15);
    let mut acc = [[[_mm256_setzero_si256(); 2]; PANELS]; ROWS];
    // Where high nibbles are summed: apart from the low ones, or in the same registers.
    let apart = usize::from(ROWS <= 2);
    for group in 0..tile.num_groups {
        let mut dots = [[[[_mm256_setzero_si256(); 2]; PANELS]; 2]; ROWS];
        for line in group_lines(group, tile.lines_per_group, tile.lines) {
            let ahead = tile.ahead(line, PANELS);
            for (panel, half) in HALVES.into_iter().take(2 * PANELS) {
                // SAFETY: the line is inside its panel; a prefetch may point anywhere.
                let packed = unsafe {
                    let q = tile.q.add(panel * tile.panel_bytes + line * LINE + half * 32);
                    if half == 0 {
                        _mm_prefetch::<_MM_HINT_T0>(q.wrapping_add(ahead).cast());
                    }
                    _mm256_loadu_si256(q.cast())
                };
                let low = _mm256_and_si256(packed, nibble);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
                for (m, dots) in dots.iter_mut().enumerate() {
                    // SAFETY: 8 codes of token m at this line.
                    let (first, second) = unsafe {
                        let a = tile.a.add(2 * line * tile.a_step + 4 * m);
                        (
                            a.cast::<i32>().read_unaligned(),
                            a.add(tile.a_step).cast::<i32>().read_unaligned(),
                        )
                    };
                    let dot = &mut dots[0][panel][half];
                    *dot = _mm256_dpbusd_avx_epi32(*dot, low, _mm256_set1_epi32(first));
                    let dot = &mut dots[apart][panel][half];
                    *dot = _mm256_dpbusd_avx_epi32(*dot, high, _mm256_set1_epi32(second));
                }
            }
        }
        // SAFETY: a group of the tile.
        unsafe { add_group(&tile, group, &dots, &mut acc) };
    }
    for (m, acc) in acc.iter().enumerate() {
        for (place, acc) in acc.iter().flatten().enumerate() {
            // SAFETY: 16 sums for each token and panel.
            unsafe { _mm256_storeu_si256(tile.acc.add(m * tile.acc_stride + place * 8).cast(), *acc) };
        }
    }
}

/// Sums of a tile: `[tokens][panels][halves]`.
type Sums<const ROWS: usize, const PANELS: usize> = [[[__m256i; 2]; PANELS]; ROWS];

/// Adds a group's dot products (of low and of high nibbles) to the sums: without zero points, times the group scales.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn add_group<const ROWS: usize, const PANELS: usize>(
    tile: &W4Tile,
    group: usize,
    dots: &[[[[__m256i; 2]; PANELS]; 2]; ROWS],
    acc: &mut Sums<ROWS, PANELS>,
) {
    for (panel, half) in HALVES.into_iter().take(2 * PANELS) {
        // SAFETY: 32 bytes of scales and zero points for each group of a panel.
        let (s2, zero) = unsafe {
            let groups = tile.groups.add((panel * tile.num_groups + group) * GROUP_BYTES);
            let scales = groups.add(half * 8);
            (
                _mm_loadl_epi64(scales.cast()),
                _mm_loadl_epi64(scales.add(PANEL).cast()),
            )
        };
        let (s2, zero) = (_mm256_cvtepu8_epi32(s2), _mm256_cvtepu8_epi32(zero));
        for m in 0..ROWS {
            // SAFETY: a sum for each token and group.
            let sum = unsafe { *tile.group_sums.add(m * tile.num_groups + group) };
            // Zero where high nibbles are in the first.
            let dot = _mm256_add_epi32(dots[m][0][panel][half], dots[m][1][panel][half]);
            let centred = _mm256_sub_epi32(dot, _mm256_mullo_epi32(zero, _mm256_set1_epi32(sum)));
            let acc = &mut acc[m][panel][half];
            *acc = _mm256_add_epi32(*acc, _mm256_mullo_epi32(s2, centred));
        }
    }
}

/// # Safety
/// As for `choose::w8`, one panel.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn w8(tile: &W8Tile, rows: usize) {
    let mut done = 0;
    // SAFETY: passed on; each step takes rows that remain.
    unsafe {
        for (size, run) in [
            (6, w8_tile::<6> as unsafe fn(&W8Tile, usize)),
            (3, w8_tile::<3>),
            (1, w8_tile::<1>),
        ] {
            while rows - done >= size {
                run(tile, done);
                done += size;
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn w8_tile<const ROWS: usize>(tile: &W8Tile, row: usize) {
    // SAFETY: the tile has the rows.
    let tile = unsafe { tile.rows_from(row) };
    let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
    for (m, acc) in acc.iter_mut().enumerate() {
        for (half, acc) in acc.iter_mut().enumerate() {
            // SAFETY: a start for each token, or 16 sums for each token.
            *acc = unsafe {
                if tile.start.is_null() {
                    _mm256_loadu_si256(tile.acc.add(m * tile.acc_stride + half * 8).cast())
                } else {
                    _mm256_set1_epi32(*tile.start.add(m))
                }
            };
        }
    }
    for line in 0..tile.lines {
        let mut w = [_mm256_setzero_si256(); 2];
        for (half, w) in w.iter_mut().enumerate() {
            // SAFETY: the line is inside the panel; a prefetch may point anywhere.
            *w = unsafe {
                let w = tile.w.add(line * LINE + half * 32);
                // Few tokens come straight from memory.
                if ROWS <= 3 && half == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(PREFETCH_BYTES).cast());
                }
                _mm256_loadu_si256(w.cast())
            };
        }
        for (m, acc) in acc.iter_mut().enumerate() {
            // SAFETY: 4 codes of token m at this line.
            let a = unsafe {
                tile.a
                    .add(line * tile.a_step + 4 * m)
                    .cast::<i32>()
                    .read_unaligned()
            };
            for (acc, w) in acc.iter_mut().zip(w) {
                *acc = _mm256_dpbusd_avx_epi32(*acc, w, _mm256_set1_epi32(a));
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
