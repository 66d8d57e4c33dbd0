//! Integer tiles with `vpdpbusd` on 512-bit registers: 64 multiply-adds an instruction, exact in i32.
//!
//! W4 (few tokens, bound by memory): one line of 64 bytes gives 16 rows x 8 k; per token two dot products, low and high
//! nibbles apart. One or two tokens read four panels at once: more streams from memory, and broadcasts shared.
//! W8 (many tokens): 12 tokens x 2 panels = 24 accumulators; per 4 k two loads, 12 broadcasts and 24 dot products.

use std::arch::x86_64::*;
use std::ops::Range;

use super::layout::{GROUP_BYTES, LINE, PANEL, group_lines, groups_of};
use super::tile::{PREFETCH_BYTES, W4Tile, W8Tile};

/// # Safety
/// As for `choose::w4`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn w4(tile: &W4Tile, rows: usize, panels: usize) {
    // SAFETY: passed on.
    unsafe {
        match (rows, panels) {
            (1, 4) => w4_tile::<1, 4>(tile, 0, 0),
            (2, 4) => w4_tile::<2, 4>(tile, 0, 0),
            (3, 2) => w4_tile::<3, 2>(tile, 0, 0),
            (4, 2) => w4_tile::<4, 2>(tile, 0, 0),
            _ => (0..panels).for_each(|panel| w4_panel(tile, panel, rows)),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn w4_panel(tile: &W4Tile, panel: usize, rows: usize) {
    let mut done = 0;
    // SAFETY: passed on; each step takes rows that remain.
    unsafe {
        for (size, run) in [
            (8, w4_tile::<8, 1> as unsafe fn(&W4Tile, usize, usize)),
            (6, w4_tile::<6, 1>),
            (4, w4_tile::<4, 1>),
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn w4_tile<const ROWS: usize, const PANELS: usize>(tile: &W4Tile, panel: usize, row: usize) {
    // SAFETY: the tile has the panels and rows.
    let tile = unsafe { tile.panel(panel).rows_from(row) };
    let nibble = _mm512_set1_epi8(15);
    let mut acc = [[_mm512_setzero_si512(); PANELS]; ROWS];
    for group in 0..tile.num_groups {
        let mut low_dots = [[_mm512_setzero_si512(); PANELS]; ROWS];
        let mut high_dots = [[_mm512_setzero_si512(); PANELS]; ROWS];
        for line in group_lines(group, tile.lines_per_group, tile.lines) {
            let (mut low, mut high) = ([_mm512_setzero_si512(); PANELS], [_mm512_setzero_si512(); PANELS]);
            let ahead = tile.ahead(line, PANELS);
            for panel in 0..PANELS {
                // SAFETY: the line is inside its panel; a prefetch may point anywhere.
                let packed = unsafe {
                    let q = tile.q.add(panel * tile.panel_bytes + line * LINE);
                    _mm_prefetch::<_MM_HINT_T0>(q.wrapping_add(ahead).cast());
                    _mm512_loadu_si512(q.cast())
                };
                low[panel] = _mm512_and_si512(packed, nibble);
                high[panel] = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), nibble);
            }
            for m in 0..ROWS {
                // SAFETY: 8 codes of token m at this line.
                let (first, second) = unsafe {
                    let a = tile.a.add(2 * line * tile.a_step + 4 * m);
                    (
                        a.cast::<i32>().read_unaligned(),
                        a.add(tile.a_step).cast::<i32>().read_unaligned(),
                    )
                };
                let (first, second) = (_mm512_set1_epi32(first), _mm512_set1_epi32(second));
                for panel in 0..PANELS {
                    low_dots[m][panel] = _mm512_dpbusd_epi32(low_dots[m][panel], low[panel], first);
                    high_dots[m][panel] = _mm512_dpbusd_epi32(high_dots[m][panel], high[panel], second);
                }
            }
        }
        // SAFETY: a group of the tile.
        unsafe { add_group(&tile, group, (&low_dots, &high_dots), &mut acc) };
    }
    for (m, acc) in acc.iter().enumerate() {
        for (panel, acc) in acc.iter().enumerate() {
            // SAFETY: 16 sums for each token and panel.
            unsafe { _mm512_storeu_si512(tile.acc.add(m * tile.acc_stride + panel * PANEL).cast(), *acc) };
        }
    }
}

/// Adds a group's dot products to the sums: without zero points, times the group scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn add_group<const ROWS: usize, const PANELS: usize>(
    tile: &W4Tile,
    group: usize,
    (low_dots, high_dots): (&[[__m512i; PANELS]; ROWS], &[[__m512i; PANELS]; ROWS]),
    acc: &mut [[__m512i; PANELS]; ROWS],
) {
    for panel in 0..PANELS {
        // SAFETY: 32 bytes of scales and zero points for each group of a panel.
        let (s2, zero) = unsafe {
            let scales = tile.groups.add((panel * tile.num_groups + group) * GROUP_BYTES);
            if group.is_multiple_of(2) {
                _mm_prefetch::<_MM_HINT_T0>(
                    scales.wrapping_add(PANELS * tile.num_groups * GROUP_BYTES).cast(),
                );
            }
            (
                _mm_loadu_si128(scales.cast()),
                _mm_loadu_si128(scales.add(PANEL).cast()),
            )
        };
        let (s2, zero) = (_mm512_cvtepu8_epi32(s2), _mm512_cvtepu8_epi32(zero));
        for m in 0..ROWS {
            // SAFETY: a sum for each token and group.
            let sum = unsafe { *tile.group_sums.add(m * tile.num_groups + group) };
            let dot = _mm512_add_epi32(low_dots[m][panel], high_dots[m][panel]);
            let centred = _mm512_sub_epi32(dot, _mm512_mullo_epi32(zero, _mm512_set1_epi32(sum)));
            acc[m][panel] = _mm512_add_epi32(acc[m][panel], _mm512_mullo_epi32(s2, centred));
        }
    }
}

/// # Safety
/// As for `choose::w8`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn w8(tile: &W8Tile, rows: usize, panels: usize) {
    // SAFETY: passed on.
    unsafe {
        if panels == 2 {
            w8_panels::<2>(tile, rows)
        } else {
            w8_panels::<1>(tile, rows)
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn w8_panels<const PANELS: usize>(tile: &W8Tile, rows: usize) {
    let mut done = 0;
    // SAFETY: passed on; each step takes rows that remain.
    unsafe {
        for (size, run) in [
            (12, w8_tile::<12, PANELS> as unsafe fn(&W8Tile, usize)),
            (8, w8_tile::<8, PANELS>),
            (4, w8_tile::<4, PANELS>),
            (2, w8_tile::<2, PANELS>),
            (1, w8_tile::<1, PANELS>),
        ] {
            while rows - done >= size {
                run(tile, done);
                done += size;
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn w8_tile<const ROWS: usize, const PANELS: usize>(tile: &W8Tile, row: usize) {
    // SAFETY: the tile has the rows.
    let tile = unsafe { tile.rows_from(row) };
    let mut acc = [[_mm512_setzero_si512(); PANELS]; ROWS];
    for (m, acc) in acc.iter_mut().enumerate() {
        for (panel, acc) in acc.iter_mut().enumerate() {
            // SAFETY: a start for each token, or 16 sums for each token and panel.
            *acc = unsafe {
                if tile.start.is_null() {
                    _mm512_loadu_si512(tile.acc.add(m * tile.acc_stride + panel * PANEL).cast())
                } else {
                    _mm512_set1_epi32(*tile.start.add(m))
                }
            };
        }
    }
    for line in 0..tile.lines {
        let mut w = [_mm512_setzero_si512(); PANELS];
        let ahead = tile.ahead(line, PANELS);
        for (panel, w) in w.iter_mut().enumerate() {
            // SAFETY: the line is inside its panel; a prefetch may point anywhere.
            *w = unsafe {
                let w = tile.w.add(panel * tile.panel_bytes + line * LINE);
                // Few tokens come straight from memory.
                if ROWS <= 4 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(ahead).cast());
                }
                _mm512_loadu_si512(w.cast())
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
                *acc = _mm512_dpbusd_epi32(*acc, w, _mm512_set1_epi32(a));
            }
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        for (panel, acc) in acc.iter().enumerate() {
            // SAFETY: 16 sums for each token and panel.
            unsafe { _mm512_storeu_si512(tile.acc.add(m * tile.acc_stride + panel * PANEL).cast(), *acc) };
        }
    }
}

/// W4 panel to W8 panel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) fn widen(q: &[u8], groups: &[u8], lines_per_group: usize, lines: Range<usize>, w8: &mut [u8]) {
    let (nibble, groups) = (_mm512_set1_epi8(15), groups.as_chunks::<GROUP_BYTES>().0);
    let first_line = lines.start;
    for (group, lines) in groups_of(lines, lines_per_group) {
        let scales = &groups[group];
        // SAFETY: 32 bytes of scales and zero points.
        let (s2, zero) = unsafe {
            let scales = scales.as_ptr();
            (
                _mm_loadu_si128(scales.cast()),
                _mm_loadu_si128(scales.add(PANEL).cast()),
            )
        };
        let (s2, zero) = (_mm512_cvtepu8_epi32(s2), _mm512_cvtepu8_epi32(zero));
        let offset = _mm512_sub_epi32(_mm512_set1_epi32(128), _mm512_mullo_epi32(s2, zero));
        let offset = _mm512_mullo_epi32(offset, _mm512_set1_epi32(0x0101_0101));
        for line in lines {
            let target = &mut w8[2 * (line - first_line) * LINE..][..2 * LINE];
            let source = &q[line * LINE..][..LINE];
            // SAFETY: one line in, two lines out; a prefetch may point anywhere.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(source.as_ptr().wrapping_add(PREFETCH_BYTES).cast());
                let packed = _mm512_loadu_si512(source.as_ptr().cast());
                let low = _mm512_and_si512(packed, nibble);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), nibble);
                let widen = |nibbles| _mm512_add_epi32(_mm512_mullo_epi32(nibbles, s2), offset);
                _mm512_storeu_si512(target.as_mut_ptr().cast(), widen(low));
                _mm512_storeu_si512(target.as_mut_ptr().add(LINE).cast(), widen(high));
            }
        }
    }
}
