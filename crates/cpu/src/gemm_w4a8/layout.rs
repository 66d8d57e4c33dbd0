//! How integer weights are packed.
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
//! Everything wraps modulo 2^32; the true sum fits i32, so the result is exact.

use std::ops::Range;

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
pub(super) fn group_lines(group: usize, lines_per_group: usize, lines: usize) -> Range<usize> {
    group * lines_per_group..((group + 1) * lines_per_group).min(lines)
}
