//! The checker of a card, and the size up to which the plain loop checks as well.

use dualgrain_cuda::{Freivalds, Gpu, Jit, RandomOperands};

/// Up to so many multiply-adds a product is compared with the plain loop as well.
const NAIVE_WORK: usize = 256 * 256 * 256;

/// Bits that no product leaves everywhere: an output that was not written shows.
pub(crate) const POISON: u8 = 0xff;

/// Whether a product is small enough for the plain loop.
pub(crate) fn is_small((m, n, k): (usize, usize, usize)) -> bool {
    m.saturating_mul(n).saturating_mul(k) <= NAIVE_WORK
}

/// What checked a product of this shape.
pub(crate) fn verified_by(shape: (usize, usize, usize)) -> String {
    let word = if is_small(shape) { "naive" } else { "freivalds" };
    word.to_owned()
}

/// The checker of a card.
pub(crate) struct Checker<'a> {
    pub jit: &'a Jit,
    pub device: &'a Gpu,
    pub operands: &'a RandomOperands<'a>,
    pub freivalds: &'a Freivalds<'a>,
}
