//! Integer tiles in portable Rust: the packed layouts read back the plain way.

use super::gemm_w4a8_tile::{GROUP_BYTES, LINE, PANEL, W4_LINE_K, W4Tile, W8_LINE_K, W8Tile, group_lines};
use super::isa::per_isa;

/// # Safety
/// As for `gemm_w4a8_tile::w4`.
pub(super) unsafe fn w4(tile: W4Tile, rows: usize) {
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
        let (a, sums, acc) = unsafe {
            let a = std::slice::from_raw_parts(tile.a.add(row * tile.a_stride), tile.lines * W4_LINE_K);
            let sums =
                std::slice::from_raw_parts(tile.group_sums.add(row * tile.num_groups), tile.num_groups);
            (
                a,
                sums,
                std::slice::from_raw_parts_mut(tile.acc.add(row * PANEL), PANEL),
            )
        };
        acc.fill(0);
        for (group, (scales, sum)) in groups.chunks_exact(GROUP_BYTES).zip(sums).enumerate() {
            let mut dots = [0; PANEL];
            for line in group_lines(group, tile.lines_per_group, tile.lines) {
                add_line(
                    &q[line * LINE..(line + 1) * LINE],
                    &a[line * W4_LINE_K..],
                    &mut dots,
                );
            }
            for (lane, acc) in acc.iter_mut().enumerate() {
                let (s2, zero) = (i32::from(scales[lane]), i32::from(scales[PANEL + lane]));
                let centred = dots[lane].wrapping_sub(zero.wrapping_mul(*sum));
                *acc = acc.wrapping_add(s2.wrapping_mul(centred));
            }
        }
    }
}

#[inline(always)]
fn add_line(line: &[u8], a: &[i8], dots: &mut [i32; PANEL]) {
    for (bytes, dot) in line.chunks_exact(4).zip(dots) {
        for (b, byte) in bytes.iter().enumerate() {
            *dot += i32::from(byte & 15) * i32::from(a[b]) + i32::from(byte >> 4) * i32::from(a[b + 4]);
        }
    }
}

/// # Safety
/// As for `gemm_w4a8_tile::w8`, one panel.
pub(super) unsafe fn w8(tile: W8Tile, rows: usize) {
    // SAFETY: the caller vouches for these lengths.
    let w = unsafe { std::slice::from_raw_parts(tile.w, tile.lines * LINE) };
    for row in 0..rows {
        // SAFETY: as above.
        let (a, sum, acc) = unsafe {
            let a = std::slice::from_raw_parts(tile.a.add(row * tile.a_stride), tile.lines * W8_LINE_K);
            (
                a,
                *tile.sums.add(row),
                std::slice::from_raw_parts_mut(tile.acc.add(row * tile.acc_stride), PANEL),
            )
        };
        acc.fill(sum.wrapping_mul(-128));
        for (line, a) in w.chunks_exact(LINE).zip(a.chunks_exact(W8_LINE_K)) {
            for (bytes, acc) in line.chunks_exact(4).zip(&mut *acc) {
                let dot: i32 = bytes
                    .iter()
                    .zip(a)
                    .map(|(&w, &a)| i32::from(w) * i32::from(a))
                    .sum();
                *acc = acc.wrapping_add(dot);
            }
        }
    }
}

per_isa! {
    /// W4 panel to W8 panel, compiled for each instruction set.
    pub(super) fn widen_for(q: &[u8], groups: &[u8], lines_per_group: usize, w8: &mut [u8]) = widen
}

#[inline(always)]
fn widen(q: &[u8], groups: &[u8], lines_per_group: usize, w8: &mut [u8]) {
    let lines = q.len() / LINE;
    for (group, scales) in groups.chunks_exact(GROUP_BYTES).enumerate() {
        let s2: [u32; PANEL] = std::array::from_fn(|lane| u32::from(scales[lane]));
        let offset: [u32; PANEL] = std::array::from_fn(|lane| {
            128u32
                .wrapping_sub(s2[lane] * u32::from(scales[PANEL + lane]))
                .wrapping_mul(0x0101_0101)
        });
        for line in group_lines(group, lines_per_group, lines) {
            let source = &q[line * LINE..(line + 1) * LINE];
            let (low, high) = w8[2 * line * LINE..2 * (line + 1) * LINE].split_at_mut(LINE);
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
