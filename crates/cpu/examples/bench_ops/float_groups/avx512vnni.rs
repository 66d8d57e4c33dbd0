//! Float group scales with `vpdpbusd`.
//!
//! Many tokens: 6 tokens x 2 panels, 12 sums of integers and 12 of floats in 24 registers. (12 x 1 would need 13 loads for 12
//! dot products, this tile 8.) One token: nibbles, four panels side by side, as our own product reads them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::layout::{
    Activations, BLOCK_GROUPS, COLUMNS, GROUP_BYTES, GROUP_LINES, LINE, Line, PANEL, PANELS, Panels, Tile,
    group_blocks, tile,
};

/// Panels of a tile.
const PAIR: usize = 2;
/// Bytes of a widened panel.
const PANEL_BYTES: usize = BLOCK_GROUPS * GROUP_BYTES;
/// How far ahead nibbles are asked for, as our own product does.
const PREFETCH_BYTES: usize = 2048;

/// Rows of a block of D from widened panels.
pub fn widened(a: &Activations, rows: Range<usize>, panels: Panels<'_>, d: &mut [f32]) {
    let mut bytes = Line([0u8; PAIR * PANEL_BYTES]);
    for first_panel in (0..PANELS).step_by(PAIR) {
        for groups in group_blocks(panels.groups) {
            let pair = panels.from(first_panel);
            for (panel, bytes) in bytes.0.chunks_exact_mut(PANEL_BYTES).enumerate() {
                // SAFETY: the device has the instruction set.
                unsafe { widen(pair.from(panel), groups.clone(), 128, bytes) };
            }
            for tokens in a.tiles(rows.clone()) {
                let place = (tokens.start - rows.start) * COLUMNS + first_panel * PANEL;
                let d = d[place..][..(tokens.len() - 1) * COLUMNS + PAIR * PANEL].as_mut_ptr();
                let mut tile = tile(a, &tokens, pair, groups.clone(), d);
                tile.weights = bytes.0.as_ptr();
                // SAFETY: the instruction set is there; `tile` checked codes, starts and scales, `bytes` holds two panels of the
                // groups, `d` the outputs.
                unsafe {
                    match tokens.len() {
                        1 => dot::<1>(&tile),
                        2 => dot::<2>(&tile),
                        3 => dot::<3>(&tile),
                        4 => dot::<4>(&tile),
                        5 => dot::<5>(&tile),
                        _ => dot::<6>(&tile),
                    }
                }
            }
        }
    }
}

/// Groups of the first of `panels` as bytes `q - zero + offset`, 4 k of 16 rows to a line.
///
/// Two instructions for 64 weights; our own widening multiplies by the group scale besides.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub fn widen(panels: Panels<'_>, groups: Range<usize>, offset: u8, bytes: &mut [u8]) {
    let nibble = _mm512_set1_epi8(15);
    let mut targets = bytes.chunks_exact_mut(2 * LINE);
    for group in groups {
        let offset = _mm512_sub_epi8(_mm512_set1_epi8(offset as i8), four_times(&panels.zeros[group]));
        let lines = &panels.q[group * GROUP_LINES..(group + 1) * GROUP_LINES];
        for (Line(source), target) in lines.iter().zip(&mut targets) {
            // SAFETY: one line in, two lines out; a prefetch may point anywhere.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(source.as_ptr().wrapping_add(PREFETCH_BYTES).cast());
                let packed = _mm512_loadu_si512(source.as_ptr().cast());
                let low = _mm512_and_si512(packed, nibble);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), nibble);
                _mm512_storeu_si512(target.as_mut_ptr().cast(), _mm512_add_epi8(low, offset));
                _mm512_storeu_si512(
                    target.as_mut_ptr().add(LINE).cast(),
                    _mm512_add_epi8(high, offset),
                );
            }
        }
    }
}

/// 16 bytes, each in the four bytes of its lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn four_times(bytes: &[u8; PANEL]) -> __m512i {
    // SAFETY: 16 bytes.
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm512_mullo_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(0x0101_0101))
}

/// # Safety
/// `tile` describes memory for `ROWS` tokens and two widened panels.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dot<const ROWS: usize>(tile: &Tile) {
    let mut sums = [[_mm512_setzero_ps(); PAIR]; ROWS];
    if !tile.first {
        for (m, sums) in sums.iter_mut().enumerate() {
            for (panel, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 32 sums for each token.
                *sum = unsafe { _mm512_loadu_ps(tile.d.add(m * COLUMNS + panel * PANEL)) };
            }
        }
    }
    for group in 0..tile.groups {
        let mut dots = [[_mm512_setzero_si512(); PAIR]; ROWS];
        for (m, dots) in dots.iter_mut().enumerate() {
            // SAFETY: a start for each group and token.
            *dots = [_mm512_set1_epi32(unsafe { *tile.starts.add(group * ROWS + m) }); PAIR];
        }
        for line in group * 2 * GROUP_LINES..(group + 1) * 2 * GROUP_LINES {
            // SAFETY: the line is inside the widened panels.
            let w: [_; PAIR] = std::array::from_fn(|panel| unsafe {
                _mm512_loadu_si512(tile.weights.add(panel * PANEL_BYTES + line * LINE).cast())
            });
            for (m, dots) in dots.iter_mut().enumerate() {
                // SAFETY: 4 codes of token m at this line.
                let a = unsafe { tile.codes.cast::<i32>().add(line * ROWS + m).read_unaligned() };
                for (dot, w) in dots.iter_mut().zip(w) {
                    *dot = _mm512_dpbusd_epi32(*dot, w, _mm512_set1_epi32(a));
                }
            }
        }
        for panel in 0..PAIR {
            // SAFETY: 16 scales for each panel and group.
            let scale =
                unsafe { _mm512_loadu_ps(tile.scales.add((panel * tile.panel_groups + group) * PANEL)) };
            for (sums, dots) in sums.iter_mut().zip(&dots) {
                sums[panel] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[panel]), scale, sums[panel]);
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (panel, sum) in sums.iter().enumerate() {
            // SAFETY: 32 sums and a scale for each token.
            unsafe { store(tile, m, tile.d.add(m * COLUMNS + panel * PANEL), *sum) };
        }
    }
}

/// Writes sums of token `m`, scaled if they are complete.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn store(tile: &Tile, m: usize, place: *mut f32, sum: __m512) {
    // SAFETY: passed on.
    unsafe {
        let sum = match tile.ta.is_null() {
            true => sum,
            false => _mm512_mul_ps(sum, _mm512_set1_ps(*tile.ta.add(m))),
        };
        _mm512_storeu_ps(place, sum);
    }
}

/// Rows of a block of D straight from nibbles.
pub fn nibbles(a: &Activations, rows: Range<usize>, panels: Panels<'_>, d: &mut [f32]) {
    for tokens in a.tiles(rows.clone()) {
        let d = d[(tokens.start - rows.start) * COLUMNS..][..COLUMNS].as_mut_ptr();
        let tile = tile(a, &tokens, panels, 0..panels.groups, d);
        // SAFETY: the device has the instruction set; the tile holds one token and four panels.
        unsafe { one_token(&tile) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn one_token(tile: &Tile) {
    let (nibble, lines) = (_mm512_set1_epi8(15), tile.groups * GROUP_LINES);
    let mut sums = [_mm512_setzero_ps(); PANELS];
    for group in 0..tile.groups {
        let mut low_dots = [_mm512_setzero_si512(); PANELS];
        let mut high_dots = [_mm512_setzero_si512(); PANELS];
        for line in group * GROUP_LINES..(group + 1) * GROUP_LINES {
            // What follows the last lines of a panel is being read beside them.
            let ahead = match line + PREFETCH_BYTES / LINE < lines {
                true => PREFETCH_BYTES,
                false => PREFETCH_BYTES + (PANELS - 1) * lines * LINE,
            };
            // SAFETY: 8 codes at this line.
            let (first, second) = unsafe {
                let a = tile.codes.cast::<i32>().add(2 * line);
                (a.read_unaligned(), a.add(1).read_unaligned())
            };
            let (first, second) = (_mm512_set1_epi32(first), _mm512_set1_epi32(second));
            for panel in 0..PANELS {
                // SAFETY: the line is inside its panel; a prefetch may point anywhere.
                let packed = unsafe {
                    let q = tile.weights.add((panel * lines + line) * LINE);
                    _mm_prefetch::<_MM_HINT_T0>(q.wrapping_add(ahead).cast());
                    _mm512_loadu_si512(q.cast())
                };
                let low = _mm512_and_si512(packed, nibble);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), nibble);
                low_dots[panel] = _mm512_dpbusd_epi32(low_dots[panel], low, first);
                high_dots[panel] = _mm512_dpbusd_epi32(high_dots[panel], high, second);
            }
        }
        for panel in 0..PANELS {
            let place = (panel * tile.panel_groups + group) * PANEL;
            let next = PANELS * tile.panel_groups * PANEL;
            // SAFETY: 16 scales and zero points for each panel and group, a start for each group; prefetches may point anywhere.
            unsafe {
                let (scale, zero) = (tile.scales.add(place), tile.zeros.add(place));
                _mm_prefetch::<_MM_HINT_T0>(scale.wrapping_add(next).cast());
                if group % 4 == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(zero.wrapping_add(next).cast());
                }
                let zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(zero.cast()));
                let start = _mm512_mullo_epi32(zero, _mm512_set1_epi32(*tile.starts.add(group)));
                let dot = _mm512_add_epi32(start, _mm512_add_epi32(low_dots[panel], high_dots[panel]));
                sums[panel] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_loadu_ps(scale), sums[panel]);
            }
        }
    }
    for (panel, sum) in sums.iter().enumerate() {
        // SAFETY: 64 sums of the token.
        unsafe { store(tile, 0, tile.d.add(panel * PANEL), *sum) };
    }
}
