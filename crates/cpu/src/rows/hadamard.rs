//! The Hadamard transform of runs of a row, alone or quantized while the row lies in the first-level cache.
//!
//! A run is taken as vectors of 16 lanes. Elements less than 16 apart meet inside a vector, by a shuffle and a change of signs;
//! then up to eight neighbouring vectors meet in registers, and the at most four groups of eight of the longest runs in a second
//! pass. Each pair meets in the specification's order, so the bits are those of the plain loops.

use dualgrain_device::ActivationScale;
use dualgrain_device::naive::{self, LANES, hadamard_scale};

use super::quantize::{Place, quantize_row};
use crate::isa::per_isa;

/// Vectors that meet in registers.
const GROUP: usize = 8;

type Vector = [f32; LANES];

per_isa! {
    /// Every run of `block` elements of one row becomes its transform.
    pub(crate) fn hadamard(x: &mut [f32], block: usize) = transform_row
}

per_isa! {
    /// The same, then codes and block sums of the row to `place`; the scale.
    pub(crate) fn hadamard_quantize(
        x: &mut [f32],
        block: usize,
        scale: ActivationScale,
        place: Place<'_>,
    ) -> f32 = transform_and_quantize
}

#[inline(always)]
fn transform_and_quantize(x: &mut [f32], block: usize, scale: ActivationScale, place: Place<'_>) -> f32 {
    transform_row(x, block);
    quantize_row(&*x, scale, place)
}

#[inline(always)]
fn transform_row(x: &mut [f32], block: usize) {
    let scale = hadamard_scale(block);
    // Runs that are shorter than a vector: small models have them.
    if block < LANES {
        return naive::hadamard(x, block);
    }
    let vectors = x.as_chunks_mut::<LANES>().0;
    match block / LANES {
        1 => near::<1>(vectors, scale),
        2 => near::<2>(vectors, scale),
        4 => near::<4>(vectors, scale),
        8 => near::<GROUP>(vectors, scale),
        16 => {
            near::<GROUP>(vectors, 1.0);
            far::<2>(vectors, scale);
        }
        _ => {
            near::<GROUP>(vectors, 1.0);
            far::<4>(vectors, scale);
        }
    }
}

/// Transforms runs of `COUNT` neighbouring vectors. (To multiply by 1 changes nothing.)
#[inline(always)]
fn near<const COUNT: usize>(vectors: &mut [Vector], scale: f32) {
    for run in vectors.as_chunks_mut::<COUNT>().0 {
        let mut held = *run;
        for vector in &mut held {
            *vector = inside::<8>(inside::<4>(inside::<2>(inside::<1>(*vector))));
        }
        *run = scaled(across(held), scale);
    }
}

/// Lets `COUNT` groups of eight vectors meet, each a transform of its own before.
#[inline(always)]
fn far<const COUNT: usize>(vectors: &mut [Vector], scale: f32) {
    for run in vectors.chunks_exact_mut(COUNT * GROUP) {
        for place in 0..GROUP {
            let mut held = [[0.0; LANES]; COUNT];
            for (group, vector) in held.iter_mut().enumerate() {
                *vector = run[place + group * GROUP];
            }
            for (group, vector) in scaled(across(held), scale).into_iter().enumerate() {
                run[place + group * GROUP] = vector;
            }
        }
    }
}

/// Sums and differences of lanes `APART` apart: a - b is a + (-b).
#[inline(always)]
fn inside<const APART: usize>(vector: Vector) -> Vector {
    let (mut partner, mut own) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        partner[lane] = vector[lane ^ APART];
        own[lane] = if lane & APART == 0 {
            vector[lane]
        } else {
            -vector[lane]
        };
    }
    for lane in 0..LANES {
        own[lane] += partner[lane];
    }
    own
}

/// Sums and differences of vectors 1, 2, 4, ... apart.
#[inline(always)]
fn across<const COUNT: usize>(mut vectors: [Vector; COUNT]) -> [Vector; COUNT] {
    let mut apart = 1;
    while apart < COUNT {
        for first in 0..COUNT {
            if first & apart == 0 {
                let (low, high) = vectors.split_at_mut(first + apart);
                for (a, b) in low[first].iter_mut().zip(&mut high[0]) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        }
        apart *= 2;
    }
    vectors
}

#[inline(always)]
fn scaled<const COUNT: usize>(mut vectors: [Vector; COUNT], scale: f32) -> [Vector; COUNT] {
    for vector in &mut vectors {
        vector.iter_mut().for_each(|v| *v *= scale);
    }
    vectors
}
