//! Rotary embedding: the two halves of a head are contiguous, so the rotation is vertical as it stands.

use crate::isa::per_isa;

per_isa! {
    /// Rotates every head of one row; `angles` holds cos, then sin.
    pub(crate) fn rope(x: &mut [f32], head_dim: usize, angles: &[f32]) = rope_halves
}

#[inline(always)]
fn rope_halves(x: &mut [f32], head_dim: usize, angles: &[f32]) {
    let half = angles.len() / 2;
    let (cos, sin) = angles.split_at(half);
    for head in x.chunks_exact_mut(head_dim) {
        let (low, high) = head.split_at_mut(half);
        for (((x0, x1), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*x0, *x1) = (*x0 * c - *x1 * s, *x1 * c + *x0 * s);
        }
    }
}
