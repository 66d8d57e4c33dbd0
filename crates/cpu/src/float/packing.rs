//! Packing: rows side by side, so that a vector holds one column of them, and a tile's left operand is one stream.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
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

/// Rows of `a` `[M,k]`, columns `ks`, to `[rows/mr][ks][mr]`; lanes of missing rows of the last tile become zeros or keep what was
/// there.
///
/// Sixteen lines of a tile are transposed in registers and stored as whole vectors `mr` floats apart, in order: what a vector has beyond
/// its line is written over by the next one, and behind the last line there is room for it.
pub(crate) fn pack_rows(
    isa: Isa,
    a: &[f32],
    k: usize,
    rows: Range<usize>,
    ks: Range<usize>,
    mr: usize,
    packed: &mut Vec<f32>,
) {
    let tile_len = mr * ks.len();
    packed.resize(rows.len().div_ceil(mr) * tile_len + LANES, 0.0);
    for tile in 0..rows.len().div_ceil(mr) {
        let first = rows.start + tile * mr;
        let num_rows = mr.min(rows.end - first);
        let packed = &mut packed[tile * tile_len..][..tile_len + LANES];
        let values = &a[first * k..(first + num_rows) * k];
        pack_tile(isa, (values, k), (num_rows, mr), ks.clone(), packed);
    }
}

/// One tile: `num_rows` rows of `values`, columns `ks`, to `[ks][mr]` with 16 floats behind it.
fn pack_tile(
    isa: Isa,
    (values, k): (&[f32], usize),
    (num_rows, mr): (usize, usize),
    ks: Range<usize>,
    packed: &mut [f32],
) {
    assert!(
        ks.end <= k && num_rows <= mr && mr <= LANES && values.len() >= num_rows * k,
        "a tile of {num_rows} rows of {k}"
    );
    assert!(packed.len() >= mr * ks.len() + LANES, "room behind the tile");
    let whole = ks.len() / LANES * LANES;
    // SAFETY: `whole` columns from `ks.start` on lie in every row, their lines in `packed`, with a vector of room behind the last;
    // the instruction set is available.
    unsafe {
        let from = values.as_ptr().wrapping_add(ks.start);
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => lines_avx512((from, k), num_rows, whole, (packed.as_mut_ptr(), mr)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => lines_avx2((from, k), num_rows, whole, (packed.as_mut_ptr(), mr)),
            _ => lines::<Portable>((from, k), num_rows, whole, (packed.as_mut_ptr(), mr)),
        }
    }
    for (lane, row) in values.chunks_exact(k).take(num_rows).enumerate() {
        let lines = packed.chunks_exact_mut(mr).skip(whole);
        for (line, value) in lines.zip(&row[ks.start + whole..ks.end]) {
            line[lane] = *value;
        }
    }
}

/// # Safety
/// As for [`lines`], and AVX-512 is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn lines_avx512(from: (*const f32, usize), num_rows: usize, whole: usize, to: (*mut f32, usize)) {
    // SAFETY: passed on.
    unsafe { lines::<Avx512>(from, num_rows, whole, to) }
}

/// # Safety
/// As for [`lines`], and AVX2 is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn lines_avx2(from: (*const f32, usize), num_rows: usize, whole: usize, to: (*mut f32, usize)) {
    // SAFETY: passed on.
    unsafe { lines::<Avx2>(from, num_rows, whole, to) }
}

/// Columns up to `whole` of rows that lie `k` floats apart, to lines that lie `mr` floats apart.
///
/// # Safety
/// `num_rows` rows with `whole` floats, `whole` a multiple of 16, room for `mr * whole + 16` floats, `mr` at most 16.
#[inline(always)]
unsafe fn lines<S: F32x16>(
    (from, k): (*const f32, usize),
    num_rows: usize,
    whole: usize,
    (to, mr): (*mut f32, usize),
) {
    for column in (0..whole).step_by(LANES) {
        // SAFETY: inside the rows and the lines.
        unsafe {
            let mut block = [S::splat(0.0); LANES];
            for (row, block) in block.iter_mut().enumerate().take(num_rows) {
                *block = S::load(from.add(row * k + column));
            }
            for (offset, line) in S::transpose(block).into_iter().enumerate() {
                line.store(to.add((column + offset) * mr));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available;

    #[test]
    fn packed_rows_lie_where_a_plain_loop_puts_them() {
        for isa in available() {
            for (m, k, mr) in [
                (1usize, 1usize, 6),
                (6, 16, 6),
                (7, 33, 6),
                (12, 48, 12),
                (25, 70, 12),
                (30, 257, 12),
                (5, 15, 12),
            ] {
                let a: Vec<f32> = (0..m * k).map(|i| i as f32 + 0.5).collect();
                for (rows, ks) in [(0..m, 0..k), (m / 2..m, k / 3..k), (0..m.div_ceil(2), 0..k / 2)] {
                    let mut packed = vec![f32::NAN; 3];
                    pack_rows(isa, &a, k, rows.clone(), ks.clone(), mr, &mut packed);
                    for (local, row) in rows.clone().enumerate() {
                        for (line, column) in ks.clone().enumerate() {
                            let at = (local / mr * ks.len() + line) * mr + local % mr;
                            assert_eq!(
                                packed[at],
                                a[row * k + column],
                                "{} {m}x{k}, tiles of {mr}",
                                isa.name()
                            );
                        }
                    }
                }
            }
        }
    }
}
