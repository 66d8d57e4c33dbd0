//! Which kernel computes a tile: the one place that chooses.

use std::ops::Range;

use super::layout::LINE;
use super::portable;
use super::tile::{W4Tile, W8Tile};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512vnni, avxvnni};
use crate::isa::Isa;
use crate::tensor::quantized::{FEW_ROWS, TILE_ROWS};

/// Whether `rows` tokens are faster with widened W4 weights.
pub(super) fn widens(isa: Isa, rows: usize) -> bool {
    matches!(isa, Isa::AvxVnni | Isa::Avx512Vnni | Isa::Amx) && rows > FEW_ROWS
}

/// Tokens and panels of the largest W8 tile; the tokens divide [`TILE_ROWS`].
pub(super) fn w8_shape(isa: Isa) -> (usize, usize) {
    match isa {
        Isa::Portable => (4, 1),
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
