//! The integer tiles of attention: dot products of four codes in 16 lanes, exact in i32.
//!
//! Lanes are keys of a score and dimensions of an output, the four codes of a lane lie side by side in the cache, and
//! a row's four (of a query, of its weights) are broadcast. A score's sum is below 127 * 127 * 512 and an output's of one
//! page below 127 * 127 * 64, so both are exact as f32 as well; what follows is the fixed float order of `Device`.
//!
//! Keys are stored as code + 128, unsigned, as `vpdpbusd` wants its first operand, and sums start at -128 times the sum
//! of the query's codes. AVX2 takes 128 off again and moves the query's signs to the keys: `maddubs` of
//! |query| and key is at most 2 * 127 * 127, which fits i16. Weights are 0..=127 and values signed: no trick.
//!
//! Registers: AVX-512 12 x 2 sums + 2 lines + a broadcast; AVX-VNNI, whose 16 lanes are two registers, 6 x 1; AVX2 4 x 1, as it
//! also needs |query|, ones and the bit of 128.

#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512Vnni, AvxVnni};
use crate::float::lanes::{self, F32x16, LANES};
use crate::float::tile::tile_vectors;
use crate::isa::Isa;
use crate::kv_cache::QUAD;
use dualgrain_device::PAGE_TOKENS;

/// Bytes of 16 lanes.
const LINE: usize = QUAD * LANES;

/// Dot products of four codes in 16 lanes.
///
/// # Safety
/// Methods are called only from code compiled with (and running on) the instruction set of the implementation; pointers
/// are valid for a line of 64 bytes (keys, values) or four (query, weights), any alignment.
pub(super) trait Dot {
    /// 16 sums.
    type Sums: Copy;
    /// Four codes for each of 16 lanes.
    type Line: Copy;
    /// Four codes of a query in every lane.
    type Query: Copy;
    /// Four weights in every lane.
    type Weights: Copy;
    /// The sums as floats.
    type Floats: F32x16;

    unsafe fn zero() -> Self::Sums;
    /// What sums with keys start at.
    unsafe fn start(query_sum: i32) -> Self::Sums;
    unsafe fn keys(from: *const i8) -> Self::Line;
    unsafe fn values(from: *const i8) -> Self::Line;
    unsafe fn query(from: *const i8) -> Self::Query;
    unsafe fn weights(from: *const i8) -> Self::Weights;
    unsafe fn add_keys(sums: Self::Sums, query: Self::Query, keys: Self::Line) -> Self::Sums;
    unsafe fn add_values(sums: Self::Sums, weights: Self::Weights, values: Self::Line) -> Self::Sums;
    unsafe fn floats(sums: Self::Sums) -> Self::Floats;
}

/// A product that is computed in tiles.
pub(super) trait Product: Copy {
    /// Rows `row ..` by 16-lane vectors `vector ..`.
    ///
    /// # Safety
    /// The addresses the product names for them are valid, and `D`'s instruction set is there.
    unsafe fn tile<D: Dot, const MR: usize, const V: usize>(self, row: usize, vector: usize);
}

/// `scores[m][j] = ((queries[m] . keys[j]) * query_scales[m]) * key_scales[j] * scale`.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    /// `[quads][rows][4]`
    pub(super) queries: *const i8,
    pub(super) rows: usize,
    pub(super) query_scales: *const f32,
    /// Sums of each query's codes.
    pub(super) query_sums: *const i32,
    /// `[quads][64][4]`, code + 128.
    pub(super) keys: *const i8,
    pub(super) quads: usize,
    /// `[64]`
    pub(super) key_scales: *const f32,
    pub(super) scale: f32,
    /// Rows `stride` apart.
    pub(super) scores: *mut f32,
    pub(super) stride: usize,
}

impl Product for Scores {
    #[inline(always)]
    unsafe fn tile<D: Dot, const MR: usize, const V: usize>(self, row: usize, vector: usize) {
        // SAFETY: the caller vouches for MR rows and V vectors.
        unsafe {
            let mut sums = [[D::zero(); V]; MR];
            for (m, sums) in sums.iter_mut().enumerate() {
                *sums = [D::start(*self.query_sums.add(row + m)); V];
            }
            let mut query = self.queries.add(QUAD * row);
            let mut keys = self.keys.add(LINE * vector);
            for _ in 0..self.quads {
                let mut lines = [D::keys(keys); V];
                for (v, line) in lines.iter_mut().enumerate() {
                    *line = D::keys(keys.add(LINE * v));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let query = D::query(query.add(QUAD * m));
                    for (sums, line) in sums.iter_mut().zip(lines) {
                        *sums = D::add_keys(*sums, query, line);
                    }
                }
                query = query.wrapping_add(QUAD * self.rows);
                keys = keys.wrapping_add(QUAD * PAGE_TOKENS);
            }
            let scale = D::Floats::splat(self.scale);
            for (m, sums) in sums.iter().enumerate() {
                let query_scale = D::Floats::splat(*self.query_scales.add(row + m));
                for (v, sums) in sums.iter().enumerate() {
                    let at = (vector + v) * LANES;
                    let key_scales = D::Floats::load(self.key_scales.add(at));
                    let score = D::floats(*sums).mul(query_scale).mul(key_scales).mul(scale);
                    score.store(self.scores.add((row + m) * self.stride + at));
                }
            }
        }
    }
}

/// `outputs[m][d] = fma(weights[m] . values[d], weight_scales[m], outputs[m][d])` for one page.
#[derive(Clone, Copy)]
pub(super) struct Outputs {
    /// `[rows][64]`
    pub(super) weights: *const i8,
    pub(super) weight_scales: *const f32,
    /// `[quads][dim][4]`
    pub(super) values: *const i8,
    pub(super) quads: usize,
    /// Whole vectors.
    pub(super) dim: usize,
    /// `[rows, dim]`
    pub(super) outputs: *mut f32,
    /// Whether outputs start at zero (else at what they hold).
    pub(super) from_zero: bool,
}

impl Product for Outputs {
    #[inline(always)]
    unsafe fn tile<D: Dot, const MR: usize, const V: usize>(self, row: usize, vector: usize) {
        // SAFETY: the caller vouches for MR rows and V vectors.
        unsafe {
            let mut sums = [[D::zero(); V]; MR];
            let mut weights = self.weights.add(PAGE_TOKENS * row);
            let mut values = self.values.add(LINE * vector);
            for _ in 0..self.quads {
                let mut lines = [D::values(values); V];
                for (v, line) in lines.iter_mut().enumerate() {
                    *line = D::values(values.add(LINE * v));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let weights = D::weights(weights.add(PAGE_TOKENS * m));
                    for (sums, line) in sums.iter_mut().zip(lines) {
                        *sums = D::add_values(*sums, weights, line);
                    }
                }
                weights = weights.wrapping_add(QUAD);
                values = values.wrapping_add(QUAD * self.dim);
            }
            for (m, sums) in sums.iter().enumerate() {
                let scale = D::Floats::splat(*self.weight_scales.add(row + m));
                for (v, sums) in sums.iter().enumerate() {
                    let output = self.outputs.add((row + m) * self.dim + (vector + v) * LANES);
                    let before = if self.from_zero {
                        D::Floats::splat(0.0)
                    } else {
                        D::Floats::load(output)
                    };
                    before.fma(D::floats(*sums), scale).store(output);
                }
            }
        }
    }
}

/// Computes `rows` x `16 * vectors` results in tiles of the best shape for `isa`.
///
/// # Safety
/// All addresses that `product` names for them are valid, its results are not shared, and `isa` is available.
pub(super) unsafe fn run<P: Product>(isa: Isa, product: P, rows: usize, vectors: usize) {
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
/// As for [`run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
unsafe fn avx512<P: Product>(product: P, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe { region::<Avx512Vnni, P, 24>(product, tile_vectors(Isa::Avx512Vnni, rows), rows, vectors) }
}

/// # Safety
/// As for [`run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn avxvnni<P: Product>(product: P, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe { region::<AvxVnni, P, 6>(product, tile_vectors(Isa::AvxVnni, rows), rows, vectors) }
}

/// # Safety
/// As for [`run`].
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

/// Lanes in arrays.
struct Portable;

// SAFETY (of the block below): the caller vouches for a line or four bytes behind pointers.
impl Dot for Portable {
    type Sums = [i32; LANES];
    type Line = [[i8; QUAD]; LANES];
    type Query = [i8; QUAD];
    type Weights = [i8; QUAD];
    type Floats = lanes::Portable;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn start(_: i32) -> Self::Sums {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn keys(from: *const i8) -> Self::Line {
        // SAFETY: a line of 64 bytes.
        let stored = unsafe { from.cast::<Self::Line>().read_unaligned() };
        stored.map(|quad| quad.map(|byte| byte ^ i8::MIN))
    }

    #[inline(always)]
    unsafe fn values(from: *const i8) -> Self::Line {
        // SAFETY: a line of 64 bytes.
        unsafe { from.cast::<Self::Line>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn query(from: *const i8) -> Self::Query {
        // SAFETY: four codes.
        unsafe { from.cast::<Self::Query>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: four codes.
        unsafe { from.cast::<Self::Weights>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add_keys(sums: Self::Sums, query: Self::Query, keys: Self::Line) -> Self::Sums {
        // SAFETY: no pointers, no instruction set.
        unsafe { Self::add_values(sums, query, keys) }
    }

    #[inline(always)]
    unsafe fn add_values(mut sums: Self::Sums, weights: Self::Weights, values: Self::Line) -> Self::Sums {
        for (sum, quad) in sums.iter_mut().zip(values) {
            for (weight, code) in weights.iter().zip(quad) {
                *sum += i32::from(*weight) * i32::from(code);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> Self::Floats {
        lanes::Portable(sums.map(|sum| sum as f32))
    }
}
