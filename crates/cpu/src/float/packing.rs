//! Packing: rows side by side, so that a vector holds one column of them, and a tile's left operand is one stream.

#[cfg(target_arch = "x86_64")]
use std::ops::Range;

use super::lanes::{Avx2, Avx512};
use super::lanes::{F32x16, LANES, Portable};
use crate::isa::Isa;

/// At most 16 `rows` of `k` floats to `[k][16]`; lanes of missing rows are zeros.
pub(crate) fn transpose_to_panel(isa: Isa, rows: &[f32], k: usize, panel: &mut [f32]) {
    assert!(
        rows.len() <= LANES * k && panel.len() == LANES * k,
        "a panel of rows of {k}"
    );
    let num_rows = rows.len() / k;
    let whole = if num_rows == LANES { k / LANES * LANES } else { 0 };
    // SAFETY: the panel is whole up to this column, and the instruction set is available.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => avx512(rows.as_ptr(), k, whole, panel.as_mut_ptr()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => avx2(rows.as_ptr(), k, whole, panel.as_mut_ptr()),
            _ => blocks::<Portable>(rows.as_ptr(), k, whole, panel.as_mut_ptr()),
        }
    }
    for (column, line) in panel
        .as_chunks_mut::<LANES>()
        .0
        .iter_mut()
        .enumerate()
        .skip(whole)
    {
        *line = std::array::from_fn(|lane| {
            if lane < num_rows {
                rows[lane * k + column]
            } else {
                0.0
            }
        });
    }
}

/// # Safety
/// As for [`blocks`], and AVX-512 is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn avx512(rows: *const f32, k: usize, whole: usize, panel: *mut f32) {
    // SAFETY: passed on.
    unsafe { blocks::<Avx512>(rows, k, whole, panel) }
}

/// # Safety
/// As for [`blocks`], and AVX2 is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(rows: *const f32, k: usize, whole: usize, panel: *mut f32) {
    // SAFETY: passed on.
    unsafe { blocks::<Avx2>(rows, k, whole, panel) }
}

/// Transposes blocks of 16 x 16 up to column `whole`.
///
/// # Safety
/// 16 rows of `k` floats, `whole` a multiple of 16 and at most `k`, a panel of `16 * k` floats.
#[inline(always)]
unsafe fn blocks<S: F32x16>(rows: *const f32, k: usize, whole: usize, panel: *mut f32) {
    for column in (0..whole).step_by(LANES) {
        // SAFETY: inside the rows and the panel.
        unsafe {
            let mut block = [S::splat(0.0); LANES];
            for (row, block) in block.iter_mut().enumerate() {
                *block = S::load(rows.add(row * k + column));
            }
            for (offset, line) in S::transpose(block).into_iter().enumerate() {
                line.store(panel.add((column + offset) * LANES));
            }
        }
    }
}

/// Rows of `a` `[M,k]`, columns `ks`, to `[rows/mr][ks][mr]`; missing rows of the last tile keep what was there.
pub(crate) fn pack_rows(
    a: &[f32],
    k: usize,
    rows: Range<usize>,
    ks: Range<usize>,
    mr: usize,
    packed: &mut Vec<f32>,
) {
    packed.resize(rows.len().div_ceil(mr) * mr * ks.len(), 0.0);
    for (tile, packed) in packed.chunks_exact_mut(mr * ks.len()).enumerate() {
        for lane in 0..mr.min(rows.len() - tile * mr) {
            let start = (rows.start + tile * mr + lane) * k;
            let row = &a[start + ks.start..start + ks.end];
            for (packed, value) in packed.chunks_exact_mut(mr).zip(row) {
                packed[lane] = *value;
            }
        }
    }
}
