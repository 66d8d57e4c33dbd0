//! Integer tiles with `maddubs`: unsigned x signed bytes to i16, sums of two.
//!
//! W4: with q <= 15 and |a8| <= 127 a result is at most 3,810 in magnitude, so eight of them (32 k) add up in i16. Then
//! one `madd` by the group scale widens to i32 and applies s2 at once. The zero points leave beforehand, all groups'
//! `s2 * zero * sum a8` of twelve tokens at a time. Per 32 multiply-adds: one `maddubs`, one addition, and an eighth of a widening.
//!
//! W8: two products of bytes may pass i16, so |w| x (a with w's sign): at most 2 * 127 * 127 = 32,258 fits; widened
//! at once by a `madd` with ones.

use std::arch::x86_64::*;
use std::ops::Range;

use super::gemm_w4a8_tile::{GROUP_BYTES, K_STEP, LINE, PANEL, PREFETCH_BYTES, W4_LINE_K, W4Tile, W8Tile};
use super::tensor::TILE_ROWS;

/// Lines whose `maddubs` results fit i16 together: two results a line, eight in all.
const LINES_PER_WIDENING: usize = K_STEP / W4_LINE_K;

/// From four codes of a token to its next four, when the tile is full: addresses are then one pointer and constants.
const FULL_STEP: usize = 4 * TILE_ROWS;
/// The same, as the tile says.
const ANY_STEP: usize = 0;

/// Groups whose scales are laid out together: 2 KB.
const PART_GROUPS: usize = 32;

/// # Safety
/// As for `gemm_w4a8_tile::w4`, one panel.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn w4(tile: W4Tile, rows: usize) {
    // SAFETY: passed on; parts cover the tile's lines, and the scales of their groups are there.
    unsafe {
        if tile.pair_sums.is_null() {
            subtract_zeros(tile, rows);
        } else {
            subtract_zero_pairs(tile, rows);
        }
        let widenings = tile.lines / LINES_PER_WIDENING;
        let per_group = tile.lines_per_group / LINES_PER_WIDENING;
        for first in (0..tile.num_groups).step_by(PART_GROUPS) {
            let groups = first..(first + PART_GROUPS).min(tile.num_groups);
            let part = Part {
                scales: s2_pairs(&tile, groups.clone()),
                widenings: groups.start * per_group..(groups.end * per_group).min(widenings),
                // A group has 1, 2 or 4 widenings of its own, unless it is the only one.
                group_shift: match tile.num_groups {
                    1 => usize::BITS - 1,
                    _ => per_group.trailing_zeros(),
                },
            };
            part.rows(tile, rows);
        }
    }
}

/// Some groups of a panel.
struct Part {
    /// Of both halves of the panel, each scale in both i16 halves of its lane.
    scales: [[__m256i; 2]; PART_GROUPS],
    widenings: Range<usize>,
    /// Widenings of a group, as a power of two.
    group_shift: u32,
}

impl Part {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows(&self, mut tile: W4Tile, mut rows: usize) {
        // SAFETY: passed on; each step leaves the tile at the rows that remain.
        unsafe {
            while rows >= 4 {
                // Half a panel at a time: 4 sums of i16, 4 of i32, and the operands fit the 16 registers.
                for half in [0, 1] {
                    if tile.a_step == FULL_STEP {
                        self.add::<4, 1, FULL_STEP>(tile, half);
                    } else {
                        self.add::<4, 1, ANY_STEP>(tile, half);
                    }
                }
                tile = tile.rows_from(4);
                rows -= 4;
            }
            while rows >= 2 {
                self.add::<2, 2, ANY_STEP>(tile, 0);
                tile = tile.rows_from(2);
                rows -= 2;
            }
            if rows == 1 {
                self.add::<1, 2, ANY_STEP>(tile, 0);
            }
        }
    }

    /// Adds `ROWS` tokens times `HALVES` halves (8 rows of N) of a panel, from half `from` on, to the sums that are there.
    ///
    /// One loop over all groups, so that a group costs a load: groups of 128 run at 0.96 of one scale a row (0.91 with a
    /// loop for each group).
    #[inline(never)] // Its registers are all it needs, but no more.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add<const ROWS: usize, const HALVES: usize, const STEP: usize>(
        &self,
        tile: W4Tile,
        from: usize,
    ) {
        let mut acc = [[_mm256_setzero_si256(); HALVES]; ROWS];
        let start = self.widenings.start;
        for widening in self.widenings.clone() {
            // SAFETY: lines come in multiples of four, since K is padded to 32.
            let sums =
                unsafe { four_lines::<ROWS, HALVES, STEP>(&tile, widening * LINES_PER_WIDENING, from) };
            let scales = &self.scales[((widening - start) >> self.group_shift) % PART_GROUPS];
            for (acc, sums) in acc.iter_mut().zip(sums) {
                for half in 0..HALVES {
                    let scaled = _mm256_madd_epi16(sums[half], scales[from + half]);
                    acc[half] = _mm256_add_epi32(acc[half], scaled);
                }
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (half, acc) in acc.iter().enumerate() {
                // SAFETY: 16 sums for each token.
                unsafe {
                    let place = tile.acc.add(m * tile.acc_stride + 8 * (from + half)).cast();
                    _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place), *acc));
                }
            }
        }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn s2_pairs(tile: &W4Tile, groups: Range<usize>) -> [[__m256i; 2]; PART_GROUPS] {
    let mut pairs = [[_mm256_setzero_si256(); 2]; PART_GROUPS];
    for (group, pairs) in groups.zip(&mut pairs) {
        for (half, pairs) in pairs.iter_mut().enumerate() {
            // SAFETY: 32 bytes of scales and zero points for each group.
            let s2 = unsafe { _mm_loadl_epi64(tile.groups.add(group * GROUP_BYTES + 8 * half).cast()) };
            let s2 = _mm256_cvtepu8_epi32(s2);
            *pairs = _mm256_or_si256(s2, _mm256_slli_epi32::<16>(s2));
        }
    }
    pairs
}

/// What the zero points take off, where sums begin: `-sum over groups of s2 * zero * sum a8`.
///
/// All tokens of a tile at once: beside the products, the scales would be unpacked again for every four tokens.
#[target_feature(enable = "avx2")]
unsafe fn subtract_zeros(tile: W4Tile, rows: usize) {
    // SAFETY: 16 sums for each token, a sum of codes for each token and group.
    unsafe {
        clear(&tile, rows);
        for group in 0..tile.num_groups {
            for half in 0..2 {
                let scaled_zeros = scaled_zeros(&tile, group, half);
                for m in 0..rows {
                    let sum = _mm256_set1_epi32(*tile.group_sums.add(m * tile.num_groups + group));
                    subtract(&tile, (m, half), _mm256_mullo_epi32(scaled_zeros, sum));
                }
            }
        }
    }
}

/// The same, two groups at a time: `s2 * zero` and the sum of at most 128 codes fit i16.
#[target_feature(enable = "avx2")]
unsafe fn subtract_zero_pairs(tile: W4Tile, rows: usize) {
    let pairs = tile.num_groups.div_ceil(2);
    // SAFETY: 16 sums for each token, sums of codes for each token and pair of groups.
    unsafe {
        clear(&tile, rows);
        for pair in 0..pairs {
            for half in 0..2 {
                let first = scaled_zeros(&tile, 2 * pair, half);
                let second = match 2 * pair + 1 < tile.num_groups {
                    true => _mm256_slli_epi32::<16>(scaled_zeros(&tile, 2 * pair + 1, half)),
                    false => _mm256_setzero_si256(),
                };
                let scaled_zeros = _mm256_or_si256(first, second);
                for m in 0..rows {
                    let sums = _mm256_set1_epi32(*tile.pair_sums.add(m * pairs + pair));
                    subtract(&tile, (m, half), _mm256_madd_epi16(scaled_zeros, sums));
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn clear(tile: &W4Tile, rows: usize) {
    for m in 0..rows {
        // SAFETY: 16 sums for each token.
        unsafe { tile.acc.add(m * tile.acc_stride).write_bytes(0, PANEL) };
    }
}

/// `s2 * zero` of 8 rows of N, at most 127 * 15.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scaled_zeros(tile: &W4Tile, group: usize, half: usize) -> __m256i {
    // SAFETY: 32 bytes of scales and zero points for each group.
    let (s2, zero) = unsafe {
        let scales = tile.groups.add(group * GROUP_BYTES + 8 * half);
        (
            _mm_loadl_epi64(scales.cast()),
            _mm_loadl_epi64(scales.add(PANEL).cast()),
        )
    };
    _mm256_mullo_epi16(_mm256_cvtepu8_epi32(s2), _mm256_cvtepu8_epi32(zero))
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn subtract(tile: &W4Tile, (m, half): (usize, usize), value: __m256i) {
    // SAFETY: 16 sums for each token.
    unsafe {
        let acc = tile.acc.add(m * tile.acc_stride + 8 * half).cast();
        _mm256_storeu_si256(acc, _mm256_sub_epi32(_mm256_loadu_si256(acc), value));
    }
}

/// i16 sums over 32 k: at most 8 * 3,810 in magnitude.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn four_lines<const ROWS: usize, const HALVES: usize, const STEP: usize>(
    tile: &W4Tile,
    first: usize,
    from: usize,
) -> [[__m256i; HALVES]; ROWS] {
    let a_step = if STEP == ANY_STEP { tile.a_step } else { STEP };
    let nibble = _mm256_set1_epi8(15);
    let mut sums = [[_mm256_setzero_si256(); HALVES]; ROWS];
    for line in first..first + LINES_PER_WIDENING {
        for half in 0..HALVES {
            // SAFETY: the line is inside the panel; a prefetch may point anywhere.
            let packed = unsafe {
                let q = tile.q.add(line * LINE + 32 * (from + half));
                if half == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(q.wrapping_add(PREFETCH_BYTES).cast());
                }
                _mm256_loadu_si256(q.cast())
            };
            let low = _mm256_and_si256(packed, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
            for (m, sums) in sums.iter_mut().enumerate() {
                // SAFETY: 8 codes of token m at this line.
                let (first, second) = unsafe {
                    let a = tile.a.add(2 * line * a_step + 4 * m);
                    (
                        a.cast::<i32>().read_unaligned(),
                        a.add(a_step).cast::<i32>().read_unaligned(),
                    )
                };
                let low = _mm256_maddubs_epi16(low, _mm256_set1_epi32(first));
                let high = _mm256_maddubs_epi16(high, _mm256_set1_epi32(second));
                sums[half] = _mm256_add_epi16(sums[half], _mm256_add_epi16(low, high));
            }
        }
    }
    sums
}

/// # Safety
/// As for `gemm_w4a8_tile::w8`, one panel.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn w8(mut tile: W8Tile, mut rows: usize) {
    // SAFETY: passed on; each step leaves the tile at the rows that remain.
    unsafe {
        for (size, run) in [
            (4, w8_tile::<4> as unsafe fn(W8Tile)),
            (2, w8_tile::<2>),
            (1, w8_tile::<1>),
        ] {
            while rows >= size {
                run(tile);
                tile = tile.rows_from(size);
                rows -= size;
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn w8_tile<const ROWS: usize>(tile: W8Tile) {
    let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
    // These products are of w8 itself, so sums start at zero.
    if tile.start.is_null() {
        for (m, acc) in acc.iter_mut().enumerate() {
            for (half, acc) in acc.iter_mut().enumerate() {
                // SAFETY: 16 sums for each token.
                *acc = unsafe { _mm256_loadu_si256(tile.acc.add(m * tile.acc_stride + half * 8).cast()) };
            }
        }
    }
    for line in 0..tile.lines {
        for half in 0..2 {
            // SAFETY: the line is inside the panel.
            let w = unsafe { _mm256_loadu_si256(tile.w.add(line * LINE + half * 32).cast()) };
            let w = _mm256_xor_si256(w, offset);
            let magnitude = _mm256_abs_epi8(w);
            for (m, acc) in acc.iter_mut().enumerate() {
                // SAFETY: 4 codes of token m at this line.
                let a = unsafe {
                    tile.a
                        .add(line * tile.a_step + 4 * m)
                        .cast::<i32>()
                        .read_unaligned()
                };
                let signed = _mm256_sign_epi8(_mm256_set1_epi32(a), w);
                let dot = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, signed), ones);
                acc[half] = _mm256_add_epi32(acc[half], dot);
            }
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        for (half, acc) in acc.iter().enumerate() {
            // SAFETY: 16 sums for each token.
            unsafe { _mm256_storeu_si256(tile.acc.add(m * tile.acc_stride + half * 8).cast(), *acc) };
        }
    }
}
