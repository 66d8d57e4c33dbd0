//! Which instructions compute a product, and in tiles of which shape: the one place that chooses.
//!
//! Registers: AVX-512 12 x 2 sums + 2 lines + a broadcast; AVX-VNNI, whose 16 lanes are two registers, 6 x 1; AVX2 4 x 1, as it
//! also needs |query|, ones and the bit of 128.

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512vnni::Avx512Vnni;
#[cfg(target_arch = "x86_64")]
use super::avxvnni::AvxVnni;
use super::dot::Dot;
use super::portable::Portable;
use super::tile::Product;
use crate::float::tile::tile_vectors;
use crate::isa::Isa;

/// Computes `rows` x `16 * vectors` results in tiles of the best shape for `isa`.
///
/// # Safety
/// All addresses that `product` names for them are valid, its results are not shared, and `isa` is available.
pub(super) unsafe fn multiply<P: Product>(isa: Isa, product: P, rows: usize, vectors: usize) {
    // SAFETY: passed on; the instruction set of each wrapper is available.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => avx512(product, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avxvnni(product, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(product, rows, vectors),
            _ => region::<Portable, P, 6>(product, tile_vectors(isa, rows), rows, vectors),
        }
    }
}

/// # Safety
/// As for [`multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn avx512<P: Product>(product: P, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe { region::<Avx512Vnni, P, 24>(product, tile_vectors(Isa::Avx512Vnni, rows), rows, vectors) }
}

/// # Safety
/// As for [`multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn avxvnni<P: Product>(product: P, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe { region::<AvxVnni, P, 6>(product, tile_vectors(Isa::AvxVnni, rows), rows, vectors) }
}

/// # Safety
/// As for [`multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<P: Product>(product: P, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe { region::<Avx2, P, 4>(product, tile_vectors(Isa::Avx2, rows), rows, vectors) }
}

/// Cuts a region into columns of at most `width` vectors; tiles hold at most `ACC` sums.
#[inline(always)]
unsafe fn region<D: Dot, P: Product, const ACC: usize>(
    product: P,
    width: usize,
    rows: usize,
    vectors: usize,
) {
    let mut vector = 0;
    // SAFETY: every tile lies inside the region.
    unsafe {
        while width >= 4 && vector + 4 <= vectors {
            column::<D, P, 4, ACC>(product, vector, rows);
            vector += 4;
        }
        while width >= 2 && vector + 2 <= vectors {
            column::<D, P, 2, ACC>(product, vector, rows);
            vector += 2;
        }
        while vector < vectors {
            column::<D, P, 1, ACC>(product, vector, rows);
            vector += 1;
        }
    }
}

/// Cuts a column into tiles: the largest first, then what remains.
#[inline(always)]
unsafe fn column<D: Dot, P: Product, const V: usize, const ACC: usize>(
    product: P,
    vector: usize,
    rows: usize,
) {
    let mut row = 0;
    // SAFETY: every tile lies inside the region.
    unsafe {
        while 12 * V <= ACC && row + 12 <= rows {
            product.tile::<D, 12, V>(row, vector);
            row += 12;
        }
        while 8 * V <= ACC && row + 8 <= rows {
            product.tile::<D, 8, V>(row, vector);
            row += 8;
        }
        while 6 * V <= ACC && row + 6 <= rows {
            product.tile::<D, 6, V>(row, vector);
            row += 6;
        }
        while 4 * V <= ACC && row + 4 <= rows {
            product.tile::<D, 4, V>(row, vector);
            row += 4;
        }
        while 2 * V <= ACC && row + 2 <= rows {
            product.tile::<D, 2, V>(row, vector);
            row += 2;
        }
        while row < rows {
            product.tile::<D, 1, V>(row, vector);
            row += 1;
        }
    }
}
