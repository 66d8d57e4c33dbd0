//! Operations on one element at a time; the loops of the specification, compiled for each instruction set.

use dualgrain_device::{Activation, naive};
use dualgrain_format::FloatValues;

use super::activation::with_activation;
use crate::isa::per_isa;

per_isa! {
    /// `out[c] = f(gate[c]) * up[c]`.
    pub(crate) fn gated(x: &[f32], f: Activation, out: &mut [f32]) = gated_row
}

per_isa! {
    /// `x = f(x)`.
    pub(crate) fn activate(x: &mut [f32], f: Activation) = activate_all
}

per_isa! {
    /// `x = tanh(x * (1 / cap)) * cap`.
    pub(crate) fn soft_cap(x: &mut [f32], cap: f32) = naive::soft_cap
}

per_isa! {
    /// `x += y`.
    pub(crate) fn add(x: &mut [f32], y: &[f32]) = add_all
}

per_isa! {
    /// Row `id` of a table.
    pub(crate) fn embed(table: &FloatValues, id: u32, out: &mut [f32]) = embed_row
}

per_isa! {
    /// `maxima[j] = max(maxima[j], |x[j]|)`.
    pub(crate) fn abs_max(x: &[f32], maxima: &mut [f32]) = abs_max_row
}

#[inline(always)]
fn gated_row(x: &[f32], f: Activation, out: &mut [f32]) {
    with_activation!(f, |f| gated_with(x, f, out));
}

/// No closure: one that is called from several places is compiled by itself, for the least instruction set (six times slower).
#[inline(always)]
fn gated_with(x: &[f32], f: Activation, out: &mut [f32]) {
    let (gate, up) = x.split_at(x.len() / 2);
    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
        *o = naive::gate(f, *g, *u);
    }
}

#[inline(always)]
fn activate_all(x: &mut [f32], f: Activation) {
    with_activation!(f, |f| activate_with(x, f));
}

#[inline(always)]
fn activate_with(x: &mut [f32], f: Activation) {
    for v in x {
        *v = naive::activation(f, *v);
    }
}

#[inline(always)]
fn add_all(x: &mut [f32], y: &[f32]) {
    for (v, w) in x.iter_mut().zip(y) {
        *v += w;
    }
}

#[inline(always)]
fn embed_row(table: &FloatValues, id: u32, out: &mut [f32]) {
    let range = id as usize * out.len()..(id as usize + 1) * out.len();
    match table {
        FloatValues::F32(values) => out.copy_from_slice(&values[range]),
        FloatValues::Bf16(values) => {
            for (o, v) in out.iter_mut().zip(&values[range]) {
                *o = f32::from_bits(u32::from(v.to_bits()) << 16);
            }
        }
    }
}

#[inline(always)]
fn abs_max_row(x: &[f32], maxima: &mut [f32]) {
    for (max, v) in maxima.iter_mut().zip(x) {
        *max = if v.abs() > *max { v.abs() } else { *max };
    }
}
