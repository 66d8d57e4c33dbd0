//! The one image of a W4 layer that every GPU kernel reads.
//!
//! Blocks of 64 rows of N by 128 columns of K, block after block along K, then the next 64 rows. A block is 4 KiB of
//! codes and, behind them, its group scales and zero points. Codes lie where the tensor cores want them: a warp takes
//! 16 rows, and each lane finds the 32 codes it feeds to two instructions (m64k32, the A operand in registers) in 16
//! bytes side by side, so one wide load serves two instructions and no lane talks to another. A 32-bit word holds 4
//! columns twice: the low nibbles of its bytes are columns t..t+3, the high ones columns t+16..t+19 of 32.
//!
//! Padding is q = zero, so padded rows and columns count as 0.

use std::thread;

use dualgrain_format::{GroupSize, QuantizedLinear, int4};

use crate::error::CudaError;

/// Rows of a block.
pub const BLOCK_N: usize = 64;
/// Columns of a block.
pub const BLOCK_K: usize = 128;
/// Bytes of a block's codes.
const CODE_BYTES: usize = BLOCK_N * BLOCK_K / 2;
/// Bytes of scales and zero points for each group a block's row has.
const GROUP_BYTES: usize = 2 * BLOCK_N;
/// Images larger than this are packed by several threads.
const PARALLEL_BYTES: usize = 1 << 20;

/// Whether the kernels are compiled for a group size.
pub(crate) fn knows_group(group: GroupSize) -> bool {
    GroupSize::ALL.contains(&group)
}

/// Refuses a group size the kernels are not compiled for.
///
/// # Errors
/// A length other than 32, 64, 128 or the whole row.
pub(crate) fn check_group(group: GroupSize) -> Result<(), CudaError> {
    match group {
        GroupSize::Along(got) if !knows_group(group) => Err(CudaError::TooLarge {
            what: "group size (32, 64, 128 or the whole row)",
            got,
        }),
        GroupSize::Along(_) | GroupSize::WholeRow => Ok(()),
    }
}

/// The macro that tells a kernel its group size: a length, or 0 for the whole row.
pub(crate) fn group_macro(group: GroupSize) -> (&'static str, i64) {
    let value = match group {
        GroupSize::Along(len) => len as i64,
        GroupSize::WholeRow => 0,
    };
    ("GROUP_SIZE", value)
}

/// Groups a block's row has. One scale a row is stored as groups of 128 would be, with the scale repeated.
pub fn groups_per_block(group: GroupSize) -> usize {
    match group {
        GroupSize::Along(len) => BLOCK_K.div_ceil(len.max(1)),
        GroupSize::WholeRow => 1,
    }
}

/// Bytes of a block.
pub fn block_bytes(group: GroupSize) -> usize {
    CODE_BYTES + GROUP_BYTES * groups_per_block(group)
}

/// Bytes of the image of a layer.
///
/// # Errors
/// A group size no kernel knows, or more bytes than memory can address.
pub fn image_bytes((n, k): (usize, usize), group: GroupSize) -> Result<usize, CudaError> {
    check_group(group)?;
    let blocks = n.div_ceil(BLOCK_N).checked_mul(k.div_ceil(BLOCK_K));
    blocks
        .and_then(|blocks| blocks.checked_mul(block_bytes(group)))
        .ok_or(CudaError::TooLarge {
            what: "packed layer",
            got: n.saturating_mul(k),
        })
}

/// Packs a layer.
///
/// # Errors
/// A group length no kernel knows, or a size that overflows.
pub fn pack(layer: &QuantizedLinear) -> Result<Vec<u8>, CudaError> {
    let group = layer.group_size();
    let mut image = vec![0; image_bytes((layer.n(), layer.k()), group)?];
    let strip_bytes = layer.k().div_ceil(BLOCK_K) * block_bytes(group);
    let num_threads = match image.len() {
        0..PARALLEL_BYTES => 1,
        _ => thread::available_parallelism().map_or(1, usize::from),
    };
    let strips_per_thread = layer.n().div_ceil(BLOCK_N).div_ceil(num_threads).max(1);
    thread::scope(|scope| {
        for (part, strips) in image.chunks_mut(strips_per_thread * strip_bytes).enumerate() {
            scope.spawn(move || {
                for (strip, blocks) in strips.chunks_exact_mut(strip_bytes).enumerate() {
                    let first_row = (part * strips_per_thread + strip) * BLOCK_N;
                    pack_strip(layer, group, first_row, blocks);
                }
            });
        }
    });
    Ok(image)
}

/// 64 rows: blocks along K.
fn pack_strip(layer: &QuantizedLinear, group: GroupSize, first_row: usize, blocks: &mut [u8]) {
    let rows = BLOCK_N.min(layer.n() - first_row);
    let mut codes = vec![0u8; layer.k().next_multiple_of(BLOCK_K)];
    for row in 0..rows {
        let source = Row::new(layer, first_row + row);
        int4::unpack_row(source.codes, &mut codes[..layer.k()]);
        source.pad(&mut codes);
        for (block_idx, block) in blocks.chunks_exact_mut(block_bytes(group)).enumerate() {
            let columns = &codes[block_idx * BLOCK_K..][..BLOCK_K];
            for (k, &code) in columns.iter().enumerate() {
                let (byte, shift) = code_place(row, k);
                block[byte] |= code << shift;
            }
            for sub in 0..groups_per_block(group) {
                let (scale, zero) = source.group(block_idx * groups_per_block(group) + sub);
                let place = group_place(group, row, sub);
                block[place..place + 2].copy_from_slice(&[scale, zero]);
            }
        }
    }
    pad_rows(group, rows, blocks);
}

/// Rows beyond N: codes and zero points 0, group scales 1.
fn pad_rows(group: GroupSize, rows: usize, blocks: &mut [u8]) {
    for block in blocks.chunks_exact_mut(block_bytes(group)) {
        for row in rows..BLOCK_N {
            for sub in 0..groups_per_block(group) {
                block[group_place(group, row, sub)] = 1;
            }
        }
    }
}

/// One row of a layer.
struct Row<'a> {
    codes: &'a [u8],
    zeros: &'a [u8],
    scales: &'a [u8],
    k: usize,
    group_size: GroupSize,
}

impl<'a> Row<'a> {
    fn new(layer: &'a QuantizedLinear, row: usize) -> Self {
        Self {
            codes: layer.q_row(row),
            zeros: layer.zero_row(row),
            scales: layer.s2_row(row),
            k: layer.k(),
            group_size: layer.group_size(),
        }
    }

    /// Scale and zero point of a group; groups beyond K have scale 1 and zero point 0.
    fn group(&self, group: usize) -> (u8, u8) {
        let group = match self.group_size {
            GroupSize::Along(_) => group,
            GroupSize::WholeRow => 0,
        };
        let scale = self.scales.get(group).copied();
        scale.map_or((1, 0), |scale| (scale, int4::at(self.zeros, group)))
    }

    /// Codes beyond K: the zero point of the group they lie in.
    fn pad(&self, codes: &mut [u8]) {
        for (column, code) in codes.iter_mut().enumerate().skip(self.k) {
            *code = match self.group_size {
                GroupSize::Along(len) => self.group(column / len).1,
                GroupSize::WholeRow => self.group(0).1,
            };
        }
    }
}

/// Byte of a block and shift within it, of the code at (row, k) inside the block.
fn code_place(row: usize, k: usize) -> (usize, usize) {
    let (warp, lane_row, upper) = (row / 16, row % 8, row % 16 / 8);
    let (step, half, lane_k, byte) = (k / 32, k % 32 / 16, k % 16 / 4, k % 4);
    let word = ((warp * 2 + step / 2) * 32 + lane_row * 4 + lane_k) * 4 + step % 2 * 2 + upper;
    (4 * word + byte, 4 * half)
}

/// Puts two bytes where the scale and zero point of (row, group) of groups of 128 lie.
pub(crate) fn replace_scale(image: &mut [u8], k_blocks: usize, (row, group): (usize, usize), bytes: [u8; 2]) {
    let length = GroupSize::Along(BLOCK_K);
    let block = (row / BLOCK_N * k_blocks + group) * block_bytes(length);
    let place = block + group_place(length, row % BLOCK_N, 0);
    image[place..place + 2].copy_from_slice(&bytes);
}

/// Byte of a block where the scale of (row, group inside the block) lies; the zero point follows.
fn group_place(group: GroupSize, row: usize, sub: usize) -> usize {
    let (warp, lane_row, upper) = (row / 16, row % 8, row % 16 / 8);
    let word = (warp * groups_per_block(group) + sub) * 8 + lane_row;
    CODE_BYTES + 4 * word + 2 * upper
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualgrain_format::QuantizedParts;

    /// A layer of pseudo-random codes within the int8 guard.
    fn layer((n, k): (usize, usize), size: GroupSize, seed: u32) -> QuantizedLinear {
        let mut state = seed;
        let mut next = |bound: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) % bound) as u8
        };
        let groups = size.num_groups(k);
        let (mut q, mut zero, mut s2) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..n {
            let zeros: Vec<u8> = (0..groups).map(|_| next(16)).collect();
            s2.extend((0..groups).map(|_| 1 + next(8)));
            let codes: Vec<u8> = (0..k).map(|_| next(16)).collect();
            int4::pack_row(&codes, zeros[groups - 1], &mut q);
            int4::pack_row(&zeros, 0, &mut zero);
        }
        let parts = QuantizedParts {
            q,
            zero,
            s2,
            s1: vec![1.0; n],
            bias: None,
            ta: None,
        };
        QuantizedLinear::new((n, k), size, parts).unwrap()
    }

    /// The int8 weight at (n, k) of an image, by the layout's formulae written down a second time, bit by bit.
    fn weight(image: &[u8], (n, k): (usize, usize), k_len: usize, group: GroupSize) -> i32 {
        let (s, kb) = (groups_per_block(group), k_len.div_ceil(128));
        let block = &image[((n / 64) * kb + k / 128) * (4096 + 128 * s)..];
        let word = |idx: usize| u32::from_le_bytes(block[4 * idx..4 * idx + 4].try_into().unwrap());
        let (r, c) = (n % 64, k % 128);
        let (w, g, up) = (r >> 4, r & 7, (r >> 3) & 1);
        let (step, h, t, b) = (c >> 5, (c >> 4) & 1, (c >> 2) & 3, c & 3);
        let codes = word(((w << 1 | step >> 1) << 5 | g << 2 | t) << 2 | (step & 1) << 1 | up);
        let q = (codes >> (8 * b + 4 * h)) & 15;
        let scales = word(1024 + (w * s + c / (128 / s)) * 8 + g) >> (16 * up);
        (scales & 255) as i32 * (q as i32 - (scales >> 8 & 255) as i32)
    }

    #[test]
    fn image_read_bit_by_bit_holds_every_weight_and_zeros_around() {
        for size in GroupSize::ALL {
            for (n, k) in [
                (1, 1),
                (7, 31),
                (63, 33),
                (64, 128),
                (65, 129),
                (130, 257),
                (16, 400),
            ] {
                let layer = layer((n, k), size, (n * k) as u32);
                let image = pack(&layer).unwrap();
                let mut w8 = vec![0; k];
                for row in 0..n.next_multiple_of(64) {
                    if row < n {
                        layer.w8_row(row, &mut w8);
                    }
                    let padded = w8.iter().copied().chain(std::iter::repeat(0));
                    for (column, w8) in padded.take(k.next_multiple_of(128)).enumerate() {
                        let expected = if row < n { i32::from(w8) } else { 0 };
                        let got = weight(&image, (row, column), k, size);
                        assert_eq!(got, expected, "{n}x{k} group {size} at ({row}, {column})");
                    }
                }
            }
        }
    }

    #[test]
    fn places_of_codes_fill_a_block_exactly() {
        let mut seen = vec![0u8; CODE_BYTES];
        for row in 0..BLOCK_N {
            for k in 0..BLOCK_K {
                let (byte, shift) = code_place(row, k);
                assert_eq!(seen[byte] & 15 << shift, 0, "({row}, {k})");
                seen[byte] |= 15 << shift;
            }
        }
        assert!(seen.iter().all(|&byte| byte == 255));
    }

    #[test]
    fn scales_of_padding_are_valid() {
        let group = GroupSize::Along(32);
        let image = pack(&layer((3, 40), group, 5)).unwrap();
        for row in 0..64 {
            for sub in 0..4 {
                let place = group_place(group, row, sub);
                let (scale, zero) = (image[place], image[place + 1]);
                assert!((1..=127).contains(&scale) && zero < 16);
                if row >= 3 || sub >= 2 {
                    assert_eq!((scale, zero), (1, 0));
                }
            }
        }
    }

    #[test]
    fn large_layers_are_packed_alike_by_many_threads() {
        // 2.2 MB, so several threads; the last strip is short.
        let group = GroupSize::Along(128);
        let layer = layer((1_000, 4_096), group, 3);
        let image = pack(&layer).unwrap();
        let strip_bytes = 32 * block_bytes(group);
        for first_row in [0, 448, 960] {
            let mut strip = vec![0; strip_bytes];
            pack_strip(&layer, group, first_row, &mut strip);
            assert_eq!(strip, image[first_row / 64 * strip_bytes..][..strip_bytes]);
        }
    }

    #[test]
    fn group_sizes_no_kernel_is_compiled_for_are_refused() {
        GroupSize::ALL
            .iter()
            .for_each(|&size| assert_eq!(check_group(size), Ok(())));
        for len in [0, 48, 256] {
            assert!(image_bytes((64, 128), GroupSize::Along(len)).is_err());
        }
    }
}
