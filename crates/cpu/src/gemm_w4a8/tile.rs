//! Packings of integer weights and the tile each instruction set computes from them.
//!
//! Both packings are panels of 16 rows of N: one 512-bit register (two of 256 bits) holds a lane of 4 bytes per row, the
//! operand of a 4-way dot product; the 4 activations it meets are broadcast. Sums stay in their lane: no horizontal
//! additions, and N is the only padded dimension that costs anything (K is padded to 32 with weights of value 0).
//!
//! W4: a line of 64 bytes holds 8 k of 16 rows. Byte b of lane n: low nibble q[n, k + b], high nibble q[n, k + 4 + b].
//! One load, two `and` and one shift give two operands 0..15. Per (panel, group) 16 group scales and 16 zero points.
//! A group adds `s2 * (sum q a8 - zero * sum a8)`: the zero point leaves through the sum of the group's activations.
//!
//! W8: a line of 64 bytes holds 4 k of 16 rows, each byte `w8 + 128`: unsigned, as the unsigned x signed products want
//! it; the whole sum starts at -128 * sum a8.
//!
//! For many tokens W4 is widened to the W8 packing first, in the cache, by DESIGN.md's two instructions (multiply by s2,
//! add `(128 - s2 * zero) * 0x01010101`: no byte carries into the next, since each ends in 1..=255), and the inner
//! loop is nothing but dot products. AVX2 has no dot product whose sums of four fit; it stays with nibbles.
//!
//! Tiles go by reference down to the function that computes. A copy of fields just written, loaded 16 bytes at a time, waits until
//! every store before it has left, the last tile's outputs among them (512 tokens: 7 % of the time on AVX2).
//!
//! Everything wraps modulo 2^32; the true sum fits i32, so the result is exact.

use std::ops::Range;

use crate::isa::Isa;
use crate::tensor::quantized::TILE_ROWS;

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512vnni, avxvnni};

/// Rows of N in a panel.
pub(super) const PANEL: usize = 16;
/// Bytes of a line of either packing.
pub(super) const LINE: usize = 64;
/// k in a W4 line.
pub(super) const W4_LINE_K: usize = 8;
/// k in a W8 line.
pub(super) const W8_LINE_K: usize = 4;
/// K is padded to a multiple of this: the additions of `maddubs` results that fit i16, and a block of code sums.
pub(super) const K_STEP: usize = 32;
/// Bytes of a panel's scales and zero points per group.
pub(super) const GROUP_BYTES: usize = 2 * PANEL;

/// How far ahead weights are asked for: the hardware's prefetcher stops at every 4 KB page. Measured on one core for one
/// token, GB/s of 17.5 that reading alone gets: 15.4 at 4 KB, 16.2 at 2 KB, 15.8 at 1 KB.
pub(super) const PREFETCH_BYTES: usize = 2048;

/// Some tokens times one or more W4 panels.
#[derive(Clone, Copy)]
pub(super) struct W4Tile {
    /// Lines of the first panel: `lines * 64` bytes; the next panel starts `panel_bytes` later.
    pub(super) q: *const u8,
    pub(super) lines: usize,
    pub(super) panel_bytes: usize,
    /// 16 scales, 16 zero points for each group, panel by panel.
    pub(super) groups: *const u8,
    pub(super) lines_per_group: usize,
    /// Four codes of token m at `a + 4 * m`, the next four `a_step` bytes on; zero up to `8 * lines`.
    pub(super) a: *const i8,
    pub(super) a_step: usize,
    /// Sums of token m's codes in each group, at `group_sums + m * num_groups`.
    pub(super) group_sums: *const i32,
    pub(super) num_groups: usize,
    /// Sums `[tokens, acc_stride]` to write, 16 for each panel.
    pub(super) acc: *mut i32,
    pub(super) acc_stride: usize,
}

impl W4Tile {
    /// See [`ahead`].
    #[inline(always)]
    pub(super) fn ahead(&self, line: usize, panels: usize) -> usize {
        ahead((line, self.lines), panels, self.panel_bytes)
    }

    /// The tile of panel `panel` alone.
    ///
    /// # Safety
    /// The tile has that panel.
    #[inline(always)]
    pub(super) unsafe fn panel(mut self, panel: usize) -> Self {
        // SAFETY: inside what the tile describes.
        unsafe {
            self.q = self.q.add(panel * self.panel_bytes);
            self.groups = self.groups.add(panel * self.num_groups * GROUP_BYTES);
            self.acc = self.acc.add(panel * PANEL);
        }
        self
    }

    /// The tile without its first `rows` tokens.
    ///
    /// # Safety
    /// The tile has as many.
    #[inline(always)]
    pub(super) unsafe fn rows_from(mut self, rows: usize) -> Self {
        // SAFETY: inside what the tile describes, or one past it.
        unsafe {
            self.a = self.a.add(4 * rows);
            self.group_sums = self.group_sums.add(rows * self.num_groups);
            self.acc = self.acc.add(rows * self.acc_stride);
        }
        self
    }
}

/// Some tokens times one or two W8 panels.
#[derive(Clone, Copy)]
pub(super) struct W8Tile {
    /// Lines of the first panel: `lines * 64` bytes; the second panel starts `panel_bytes` later.
    pub(super) w: *const u8,
    pub(super) lines: usize,
    pub(super) panel_bytes: usize,
    pub(super) a: *const i8,
    pub(super) a_step: usize,
    /// What each token's sums start at, or null: at what `acc` holds.
    pub(super) start: *const i32,
    /// Sums `[tokens, acc_stride]` to write, 16 for each panel.
    pub(super) acc: *mut i32,
    pub(super) acc_stride: usize,
}

impl W8Tile {
    /// See [`ahead`].
    #[inline(always)]
    pub(super) fn ahead(&self, line: usize, panels: usize) -> usize {
        ahead((line, self.lines), panels, self.panel_bytes)
    }

    /// The tile without its first `rows` tokens.
    ///
    /// # Safety
    /// The tile has as many.
    #[inline(always)]
    pub(super) unsafe fn rows_from(mut self, rows: usize) -> Self {
        // SAFETY: inside what the tile describes, or one past it.
        unsafe {
            self.a = self.a.add(4 * rows);
            if !self.start.is_null() {
                self.start = self.start.add(rows);
            }
            self.acc = self.acc.add(rows * self.acc_stride);
        }
        self
    }
}

/// How far ahead of a line of some panels to prefetch: what follows the last lines is not the next panel, which is being
/// read beside this one, but the one after all `panels` of the tile.
#[inline(always)]
fn ahead((line, lines): (usize, usize), panels: usize, panel_bytes: usize) -> usize {
    if line + PREFETCH_BYTES / LINE < lines {
        PREFETCH_BYTES
    } else {
        PREFETCH_BYTES + (panels - 1) * panel_bytes
    }
}

/// The groups that `lines` touch, each with its lines among them.
#[inline(always)]
pub(super) fn groups_of(
    lines: Range<usize>,
    lines_per_group: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    (lines.start / lines_per_group..lines.end.div_ceil(lines_per_group)).map(move |group| {
        let first = group * lines_per_group;
        (
            group,
            first.max(lines.start)..(first + lines_per_group).min(lines.end),
        )
    })
}

/// Lines a group spans, from its index.
#[inline(always)]
pub(super) fn group_lines(group: usize, lines_per_group: usize, lines: usize) -> std::ops::Range<usize> {
    group * lines_per_group..((group + 1) * lines_per_group).min(lines)
}

/// Whether many tokens are faster with widened weights.
pub(super) fn widens(isa: Isa) -> bool {
    matches!(isa, Isa::AvxVnni | Isa::Avx512Vnni | Isa::Amx)
}

/// Tokens and panels of the largest W8 tile; the tokens divide [`TILE_ROWS`].
pub(super) fn w8_shape(isa: Isa) -> (usize, usize) {
    match isa {
        Isa::Naive => (4, 1),
        Isa::Avx2 => (4, 1),
        Isa::AvxVnni => (6, 1),
        Isa::Avx512Vnni | Isa::Amx => (12, 2),
    }
}

/// Panels that `rows` tokens take at a time.
pub(super) fn w4_panels(isa: Isa, rows: usize) -> usize {
    match (isa, rows) {
        (Isa::Avx512Vnni | Isa::Amx, ..=2) => 4,
        (Isa::Avx512Vnni | Isa::Amx, ..=4) | (Isa::AvxVnni | Isa::Avx2, ..=1) => 2,
        _ => 1,
    }
}

/// `rows` (at most [`TILE_ROWS`]) tokens times W4 panels, at most those of [`w4_panels`].
///
/// # Safety
/// `tile` describes readable and writable memory for `rows` tokens, and `isa` is available.
pub(super) unsafe fn w4(isa: Isa, tile: &W4Tile, rows: usize, panels: usize) {
    debug_assert!(rows <= TILE_ROWS && panels <= w4_panels(isa, rows));
    // SAFETY: passed on to the caller.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => avx512vnni::w4(tile, rows, panels),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avxvnni::w4(tile, rows, panels),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::w4(tile, rows, panels),
            _ => portable::w4(tile, rows),
        }
    }
}

/// `rows` tokens times `panels` W8 panels, at most those of [`w8_shape`].
///
/// # Safety
/// As for [`w4`].
pub(super) unsafe fn w8(isa: Isa, tile: &W8Tile, rows: usize, panels: usize) {
    debug_assert!(rows <= w8_shape(isa).0 && panels <= w8_shape(isa).1);
    // SAFETY: passed on to the caller.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => avx512vnni::w8(tile, rows, panels),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avxvnni::w8(tile, rows),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::w8(tile, rows),
            _ => portable::w8(tile, rows),
        }
    }
}

/// Widens `lines` of a W4 panel (`q`, `groups`) to the W8 packing: two lines for each line.
pub(super) fn widen(
    isa: Isa,
    q: &[u8],
    groups: &[u8],
    lines_per_group: usize,
    lines: Range<usize>,
    w8: &mut [u8],
) {
    assert_eq!(w8.len(), 2 * LINE * lines.len(), "widened panel");
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction set is available.
        Isa::Avx512Vnni | Isa::Amx => unsafe { avx512vnni::widen(q, groups, lines_per_group, lines, w8) },
        _ => portable::widen_for(isa, q, groups, lines_per_group, lines, w8),
    }
}
