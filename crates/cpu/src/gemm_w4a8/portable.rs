//! Integer tiles in portable Rust: the packed layouts read back the plain way.

use std::ops::Range;

use super::layout::{GROUP_BYTES, LINE, PANEL, group_lines, groups_of};
use super::tile::{W4Tile, W8Tile};
use crate::isa::per_isa;

/// # Safety
/// As for `choose::w4`.
pub(super) unsafe fn w4(tile: &W4Tile, rows: usize) {
    // SAFETY: the caller vouches for these lengths.
    let (q, groups) = unsafe {
        let q = std::slice::from_raw_parts(tile.q, tile.lines * LINE);
        (
            q,
            std::slice::from_raw_parts(tile.groups, tile.num_groups * GROUP_BYTES),
        )
    };
    for row in 0..rows {
        // SAFETY: as above.
        let (sums, acc) = unsafe {
            let sums =
                std::slice::from_raw_parts(tile.group_sums.add(row * tile.num_groups), tile.num_groups);
            (
                sums,
                std::slice::from_raw_parts_mut(tile.acc.add(row * tile.acc_stride), PANEL),
            )
        };
        acc.fill(0);
        for (group, (scales, sum)) in groups.chunks_exact(GROUP_BYTES).zip(sums).enumerate() {
            let mut dots = [0; PANEL];
            for line in group_lines(group, tile.lines_per_group, tile.lines) {
                // SAFETY: eight codes of each token for each line.
                let (first, second) = unsafe {
                    (
                        quad(tile.a, row, 2 * line, tile.a_step),
                        quad(tile.a, row, 2 * line + 1, tile.a_step),
                    )
                };
                add_line(&q[line * LINE..(line + 1) * LINE], first, second, &mut dots);
            }
            for (lane, acc) in acc.iter_mut().enumerate() {
                let (s2, zero) = (i32::from(scales[lane]), i32::from(scales[PANEL + lane]));
                let centred = dots[lane].wrapping_sub(zero.wrapping_mul(*sum));
                *acc = acc.wrapping_add(s2.wrapping_mul(centred));
            }
        }
    }
}

/// Four codes of token `row`, the `step`-th of its.
unsafe fn quad(a: *const i8, row: usize, step: usize, a_step: usize) -> [i8; 4] {
    // SAFETY: passed on to the caller.
    unsafe { a.add(step * a_step + 4 * row).cast::<[i8; 4]>().read_unaligned() }
}

#[inline(always)]
fn add_line(line: &[u8], first: [i8; 4], second: [i8; 4], dots: &mut [i32; PANEL]) {
    for (bytes, dot) in line.chunks_exact(4).zip(dots) {
        for (b, byte) in bytes.iter().enumerate() {
            *dot += i32::from(byte & 15) * i32::from(first[b]) + i32::from(byte >> 4) * i32::from(second[b]);
        }
    }
}

/// # Safety
/// As for `choose::w8`, one panel.
pub(super) unsafe fn w8(tile: &W8Tile, rows: usize) {
    // SAFETY: the caller vouches for these lengths.
    let w = unsafe { std::slice::from_raw_parts(tile.w, tile.lines * LINE) };
    for row in 0..rows {
        // SAFETY: as above.
        let acc = unsafe { std::slice::from_raw_parts_mut(tile.acc.add(row * tile.acc_stride), PANEL) };
        if !tile.start.is_null() {
            // SAFETY: a start for each token.
            acc.fill(unsafe { *tile.start.add(row) });
        }
        for (line_idx, line) in w.chunks_exact(LINE).enumerate() {
            // SAFETY: four codes of each token for each line.
            let a = unsafe { quad(tile.a, row, line_idx, tile.a_step) };
            for (bytes, acc) in line.chunks_exact(4).zip(&mut *acc) {
                let dot: i32 = bytes
                    .iter()
                    .zip(a)
                    .map(|(&w, a)| i32::from(w) * i32::from(a))
                    .sum();
                *acc = acc.wrapping_add(dot);
            }
        }
    }
}

per_isa! {
    /// W4 panel to W8 panel, compiled for each instruction set.
    pub(super) fn widen_for(q: &[u8], groups: &[u8], lines_per_group: usize, lines: Range<usize>, w8: &mut [u8]) = widen
}

#[inline(always)]
fn widen(q: &[u8], groups: &[u8], lines_per_group: usize, lines: Range<usize>, w8: &mut [u8]) {
    let first_line = lines.start;
    for (group, lines) in groups_of(lines, lines_per_group) {
        let scales = &groups[group * GROUP_BYTES..][..GROUP_BYTES];
        let s2: [u32; PANEL] = std::array::from_fn(|lane| u32::from(scales[lane]));
        let offset: [u32; PANEL] = std::array::from_fn(|lane| {
            128u32
                .wrapping_sub(s2[lane] * u32::from(scales[PANEL + lane]))
                .wrapping_mul(0x0101_0101)
        });
        for line in lines {
            let source = &q[line * LINE..(line + 1) * LINE];
            let (low, high) = w8[2 * (line - first_line) * LINE..][..2 * LINE].split_at_mut(LINE);
            let words = source
                .as_chunks::<4>()
                .0
                .iter()
                .zip(low.as_chunks_mut::<4>().0)
                .zip(high.as_chunks_mut::<4>().0);
            for (lane, ((word, low), high)) in words.enumerate() {
                let word = u32::from_le_bytes(*word);
                let widen = |nibbles: u32| {
                    nibbles
                        .wrapping_mul(s2[lane])
                        .wrapping_add(offset[lane])
                        .to_le_bytes()
                };
                *low = widen(word & 0x0f0f_0f0f);
                *high = widen((word >> 4) & 0x0f0f_0f0f);
            }
        }
    }
}
