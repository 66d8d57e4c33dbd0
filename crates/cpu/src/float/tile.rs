//! The float tile: `C[MR, 16 V] += A[MR, K] * B[K, 16 V]` in registers, k in order.
//!
//! Everything float that is a product of matrices ends here: linear layers (B = packed weights), scores (B = a page of
//! transposed keys), attention outputs (B = values), Gram matrices and quadratic forms. Lanes are output columns, so
//! each output is one chain of fused multiply-adds over k = 0, 1, 2, ... whatever the tile's shape: results do not
//! depend on the instruction set, on M, or on how work is split. A stored accumulator is read back exactly, so K
//! may be cut anywhere.
//!
//! Registers: AVX-512 has 32, so 12 x 2 accumulators + 2 of B + a broadcast; AVX2 has 16, and 16 lanes take two:
//! 6 x 1 (12 registers) + 2 + 1. Two FMA ports with 4 cycles latency need 8 chains to be busy.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Element, F32x16, LANES, Portable};
use crate::isa::Isa;

/// Where a tile's operands lie; strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct FloatTile<E> {
    /// `A[m,k]` is at `a + m * a_row + k * a_k`.
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_k: usize,
    /// Lanes `16 v ..` of `B[k]` are at `b + v * b_vector + k * b_k`.
    pub(crate) b: *const E,
    pub(crate) b_vector: usize,
    pub(crate) b_k: usize,
    pub(crate) k: usize,
    /// `C[m]`, lanes `16 v ..`, is at `c + m * c_row + v * c_vector`.
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    pub(crate) c_vector: usize,
    /// Whether C starts at zero (else at what it holds).
    pub(crate) from_zero: bool,
}

/// Rows and vectors of the tile for many rows.
pub(crate) fn tile_shape(isa: Isa) -> (usize, usize) {
    match isa {
        Isa::Portable | Isa::Avx2 | Isa::AvxVnni => (6, 1),
        Isa::Avx512Vnni | Isa::Amx => (12, 2),
    }
}

/// Vectors of the tile for `rows` rows: few rows take more, so that there are chains enough to hide the latency.
pub(crate) fn tile_vectors(isa: Isa, rows: usize) -> usize {
    match (isa, rows) {
        (Isa::Avx512Vnni | Isa::Amx, ..=6) => 4,
        (Isa::Avx512Vnni | Isa::Amx, _) => 2,
        (_, ..=1) => 4,
        (_, ..=3) => 2,
        _ => 1,
    }
}

/// Computes a region of `rows` x `16 * vectors` outputs in tiles of the best shape for `isa`.
///
/// # Safety
/// All addresses that `tile` names for `rows` and `vectors` are valid, C is not shared, and `isa` is available.
pub(crate) unsafe fn multiply<E: Element>(isa: Isa, tile: FloatTile<E>, rows: usize, vectors: usize) {
    // SAFETY: passed on; the instruction set of each wrapper is available.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => avx512(tile, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => avx2(tile, rows, vectors),
            _ => region::<Portable, E, 6>(tile, tile_vectors(isa, rows), rows, vectors),
        }
    }
}

/// # Safety
/// As for [`multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn avx512<E: Element>(tile: FloatTile<E>, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe { region::<Avx512, E, 24>(tile, tile_vectors(Isa::Avx512Vnni, rows), rows, vectors) }
}

/// # Safety
/// As for [`multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<E: Element>(tile: FloatTile<E>, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe { region::<Avx2, E, 6>(tile, tile_vectors(Isa::Avx2, rows), rows, vectors) }
}

/// Cuts a region into columns of at most `width` vectors; tiles hold at most `ACC` accumulators.
#[inline(always)]
unsafe fn region<S: F32x16, E: Element, const ACC: usize>(
    tile: FloatTile<E>,
    width: usize,
    rows: usize,
    vectors: usize,
) {
    let mut vector = 0;
    // SAFETY: every sub-tile lies inside the region.
    unsafe {
        while width >= 4 && vector + 4 <= vectors {
            column::<S, E, 4, ACC>(tile.at(0, vector), rows);
            vector += 4;
        }
        while width >= 2 && vector + 2 <= vectors {
            column::<S, E, 2, ACC>(tile.at(0, vector), rows);
            vector += 2;
        }
        while vector < vectors {
            column::<S, E, 1, ACC>(tile.at(0, vector), rows);
            vector += 1;
        }
    }
}

#[inline(always)]
unsafe fn column<S: F32x16, E: Element, const V: usize, const ACC: usize>(tile: FloatTile<E>, rows: usize) {
    // Packed rows are adjacent: their addresses are one pointer and constants.
    // SAFETY: passed on.
    unsafe {
        if tile.a_row == 1 {
            rows_of::<S, E, V, ACC, true>(tile, rows);
        } else {
            rows_of::<S, E, V, ACC, false>(tile, rows);
        }
    }
}

/// Cuts a column into tiles: the largest first, then what remains.
#[inline(always)]
unsafe fn rows_of<S: F32x16, E: Element, const V: usize, const ACC: usize, const ADJACENT: bool>(
    tile: FloatTile<E>,
    rows: usize,
) {
    let mut row = 0;
    // SAFETY: every sub-tile lies inside the region.
    unsafe {
        while 12 * V <= ACC && row + 12 <= rows {
            accumulate::<S, E, 12, V, ADJACENT>(tile.at(row, 0));
            row += 12;
        }
        while 6 * V <= ACC && row + 6 <= rows {
            accumulate::<S, E, 6, V, ADJACENT>(tile.at(row, 0));
            row += 6;
        }
        while 4 * V <= ACC && row + 4 <= rows {
            accumulate::<S, E, 4, V, ADJACENT>(tile.at(row, 0));
            row += 4;
        }
        while 2 * V <= ACC && row + 2 <= rows {
            accumulate::<S, E, 2, V, ADJACENT>(tile.at(row, 0));
            row += 2;
        }
        while row < rows {
            accumulate::<S, E, 1, V, ADJACENT>(tile.at(row, 0));
            row += 1;
        }
    }
}

impl<E> FloatTile<E> {
    /// The tile that starts `row` rows and `vector` vectors further on.
    #[inline(always)]
    unsafe fn at(mut self, row: usize, vector: usize) -> Self {
        // SAFETY: inside the region the caller vouches for.
        unsafe {
            self.a = self.a.add(row * self.a_row);
            self.b = self.b.add(vector * self.b_vector);
            self.c = self.c.add(row * self.c_row + vector * self.c_vector);
        }
        self
    }
}

#[inline(always)]
unsafe fn accumulate<S: F32x16, E: Element, const MR: usize, const V: usize, const ADJACENT: bool>(
    tile: FloatTile<E>,
) {
    // SAFETY: the caller vouches for MR rows, V vectors and k steps.
    unsafe {
        let mut acc = [[S::splat(0.0); V]; MR];
        if !tile.from_zero {
            for (m, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load(tile.c.add(m * tile.c_row + v * tile.c_vector));
                }
            }
        }
        // One pointer for three rows: x86 addresses reach base, base + stride and base + 2 stride, and an addition for
        // every row would be a chain as long as the arithmetic (12 cycles a step).
        let mut a = [tile.a; MR];
        for (group, a) in a.iter_mut().enumerate() {
            *a = a.wrapping_add(3 * group * tile.a_row);
        }
        let mut b = tile.b;
        for _ in 0..tile.k {
            let mut lanes = [S::splat(0.0); V];
            for (v, lanes) in lanes.iter_mut().enumerate() {
                *lanes = E::load(b.add(v * tile.b_vector));
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let at = if ADJACENT {
                    a[0].add(m)
                } else {
                    a[m / 3].add(m % 3 * tile.a_row)
                };
                let broadcast = S::splat(*at);
                for (acc, lanes) in acc.iter_mut().zip(lanes) {
                    *acc = acc.fma(broadcast, lanes);
                }
            }
            for a in &mut a[..if ADJACENT { 1 } else { MR.div_ceil(3) }] {
                *a = a.wrapping_add(tile.a_k);
            }
            b = b.wrapping_add(tile.b_k);
        }
        for (m, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                acc.store(tile.c.add(m * tile.c_row + v * tile.c_vector));
            }
        }
    }
}

const _: () = assert!(LANES == 16);
