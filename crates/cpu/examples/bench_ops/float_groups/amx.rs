//! Float group scales on AMX: `tdpbssd` sums a group (two steps of 64 k) of 16 tokens x 64 rows of N in four tiles.
//!
//! Tile registers can neither convert nor scale: after each group its 1,024 sums go through memory into vector registers, become
//! floats and are multiplied and added. That is done for one group while the tiles compute the next.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512vnni::widen;
use super::layout::{
    Activations, BLOCK_GROUPS, COLUMNS, GROUP, GROUP_BYTES, Line, PANEL, PANELS, Panels, Tile, group_blocks,
    tile,
};

/// Tokens of a tile.
const ROWS: usize = 16;
/// Bytes of a widened panel.
const PANEL_BYTES: usize = BLOCK_GROUPS * GROUP_BYTES;
/// Bytes of a group of 16 tokens' codes.
const CODES_BYTES: usize = GROUP * ROWS;

/// i32 `[16][64]`: a group of a tile.
type Sums = Line<[i32; ROWS * COLUMNS]>;

/// Rows of a block of D.
pub fn block(a: &Activations, rows: Range<usize>, panels: Panels<'_>, d: &mut [f32]) {
    let mut bytes = Line([0u8; PANELS * PANEL_BYTES]);
    let mut sums = [Line([0; ROWS * COLUMNS]); 2];
    // SAFETY: the device has AMX; the registers are released below.
    unsafe { configure() };
    for groups in group_blocks(panels.groups) {
        for (panel, bytes) in bytes.0.chunks_exact_mut(PANEL_BYTES).enumerate() {
            // SAFETY: AMX comes with AVX-512.
            unsafe { widen(panels.from(panel), groups.clone(), 0, bytes) };
        }
        for tokens in a.tiles(rows.clone()) {
            let place = (tokens.start - rows.start) * COLUMNS;
            let d = d[place..][..ROWS * COLUMNS].as_mut_ptr();
            let mut tile = tile(a, &tokens, panels, groups.clone(), d);
            tile.weights = bytes.0.as_ptr();
            // SAFETY: registers are configured; `tile` checked codes and scales of 16 tokens, `bytes` holds four panels of the
            // groups, `d` the outputs.
            unsafe { product(&tile, &mut sums) };
        }
    }
    // SAFETY: AMX is there.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// # Safety
/// AMX is there, and this process may use it.
unsafe fn configure() {
    let mut config = [0u8; 64];
    config[0] = 1; // the palette of eight tiles
    for tile in 0..8 {
        config[16 + 2 * tile] = 64; // bytes of a row
        config[48 + tile] = ROWS as u8;
    }
    // SAFETY: 64 bytes of a valid configuration.
    unsafe { asm!("ldtilecfg [{}]", in(reg) config.as_ptr(), options(nostack, readonly)) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn product(tile: &Tile, sums: &mut [Sums; 2]) {
    // SAFETY: passed on.
    unsafe {
        if tile.first {
            tile.d.write_bytes(0, ROWS * COLUMNS);
        }
        group_sums(tile, 0, &mut sums[0]);
        for group in 1..tile.groups {
            group_sums(tile, group, &mut sums[group % 2]);
            add::<false>(tile, group - 1, &sums[(group - 1) % 2]);
        }
        let (last, sums) = (tile.groups - 1, &sums[(tile.groups - 1) % 2]);
        if tile.ta.is_null() {
            add::<false>(tile, last, sums);
        } else {
            add::<true>(tile, last, sums);
        }
    }
}

/// The exact sums of a group.
#[inline]
unsafe fn group_sums(tile: &Tile, group: usize, sums: &mut Sums) {
    // SAFETY: two tiles of codes and of each panel's weights, four tiles of sums. Tile registers belong to nobody else: the compiler
    // does not know them.
    unsafe {
        let codes = tile.codes.add(group * CODES_BYTES);
        let w = tile.weights.add(group * GROUP_BYTES);
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tileloadd tmm4, [{codes} + {row}*1]",
            "tileloadd tmm5, [{w0} + {row}*1]", "tdpbssd tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{w1} + {row}*1]", "tdpbssd tmm1, tmm4, tmm6",
            "tileloadd tmm7, [{w2} + {row}*1]", "tdpbssd tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{w3} + {row}*1]", "tdpbssd tmm3, tmm4, tmm5",
            "tileloadd tmm4, [{codes} + {row}*1 + 1024]",
            "tileloadd tmm6, [{w0} + {row}*1 + 1024]", "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {row}*1 + 1024]", "tdpbssd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{w2} + {row}*1 + 1024]", "tdpbssd tmm2, tmm4, tmm5",
            "tileloadd tmm6, [{w3} + {row}*1 + 1024]", "tdpbssd tmm3, tmm4, tmm6",
            "tilestored [{sums} + {sums_row}*1], tmm0",
            "tilestored [{sums} + {sums_row}*1 + 64], tmm1",
            "tilestored [{sums} + {sums_row}*1 + 128], tmm2",
            "tilestored [{sums} + {sums_row}*1 + 192], tmm3",
            codes = in(reg) codes,
            w0 = in(reg) w,
            w1 = in(reg) w.add(PANEL_BYTES),
            w2 = in(reg) w.add(2 * PANEL_BYTES),
            w3 = in(reg) w.add(3 * PANEL_BYTES),
            row = in(reg) 64usize,
            sums = in(reg) sums.0.as_mut_ptr(),
            sums_row = in(reg) COLUMNS * size_of::<i32>(),
            options(nostack),
        );
    }
}

/// `d += sums as f32 * scale`, in the end times the tokens' scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add<const LAST: bool>(tile: &Tile, group: usize, sums: &Sums) {
    // SAFETY: 16 scales for each panel and group, 64 sums for each token, a scale for each token if this is the last group.
    unsafe {
        let scales: [_; PANELS] = std::array::from_fn(|panel| {
            _mm512_loadu_ps(tile.scales.add((panel * tile.panel_groups + group) * PANEL))
        });
        for m in 0..ROWS {
            for (panel, scale) in scales.iter().enumerate() {
                let place = m * COLUMNS + panel * PANEL;
                let group = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums.0.as_ptr().add(place).cast()));
                let sum = _mm512_fmadd_ps(group, *scale, _mm512_loadu_ps(tile.d.add(place)));
                let sum = match LAST {
                    true => _mm512_mul_ps(sum, _mm512_set1_ps(*tile.ta.add(m))),
                    false => sum,
                };
                _mm512_storeu_ps(tile.d.add(place), sum);
            }
        }
    }
}
