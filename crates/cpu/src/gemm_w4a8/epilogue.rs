//! Integer sums to float outputs: where the sums of a task go.
//!
//! Of a gated feed-forward only `f(gate) * up` is written: tasks take panels of the gate and the panels of up that they
//! meet in turn, so that both sums are at hand. Writing [gate | up] and reading it again cost 9 % of a prefill on AMX.

use std::ops::Range;

use dualgrain_device::{Activation, naive};
use dualgrain_threads::SharedSlice;

use super::layout::PANEL;
use super::packed::PackedInt;
use crate::isa::{Isa, per_isa};
use crate::rows::activation::with_activation;
use crate::tensor::quantized::TILE_ROWS;

/// Floats of a cache line.
const LINE_FLOATS: usize = 16;
/// Panels of the gate, then of up, that stand side by side in a task.
const GATED_PANELS: usize = 2;
/// Columns of them.
const GATED_COLUMNS: usize = GATED_PANELS * PANEL;

/// Where sums go: through the epilogue to D, or as they are (tests compare them).
pub(crate) enum Sink<'a> {
    /// `D[M,N]`.
    Output(SharedSlice<'a, f32>),
    /// `D[M,N]`, rounded to bfloat16.
    Rounded(SharedSlice<'a, f32>),
    /// `D[M,N] += product`, as if the product had been written first; that of 4-bit weights is rounded to bfloat16.
    Added(SharedSlice<'a, f32>),
    /// `D[M, N/2] = f(gate) * up` of 4-bit weights, both rounded to bfloat16; the gate is first among the features.
    Gated(SharedSlice<'a, f32>, Activation),
    /// The sums `[M,N]`.
    Sums(SharedSlice<'a, i32>),
}

impl<'a> Sink<'a> {
    /// Outputs that are gated or added: those of 4-bit weights are rounded.
    pub(crate) fn rounded(d: SharedSlice<'a, f32>, weights: &PackedInt) -> Self {
        match weights.has_four_bits() {
            true => Self::Rounded(d),
            false => Self::Output(d),
        }
    }

    /// Whether the gate and up of `n` features stand in whole runs of panels.
    pub(crate) fn can_gate(n: usize) -> bool {
        n.is_multiple_of(2 * GATED_COLUMNS)
    }

    /// The panel at a place of the order that tasks go by.
    #[inline]
    pub(super) fn panel(&self, place: usize, num_panels: usize) -> usize {
        match self {
            Self::Gated(..) => {
                let (run, panel) = (place / GATED_PANELS, place % GATED_PANELS);
                let half = if run % 2 == 0 { 0 } else { num_panels / 2 };
                half + run / 2 * GATED_PANELS + panel
            }
            Self::Output(_) | Self::Rounded(_) | Self::Added(_) | Self::Sums(_) => place,
        }
    }

    /// Writes sums `[rows, 16 * places]` of the panels at some places, whose tokens have these scales.
    pub(super) fn write(
        &self,
        isa: Isa,
        weights: &PackedInt,
        scales: &[f32],
        (rows, places): (Range<usize>, Range<usize>),
        acc: &[i32],
    ) {
        let n = weights.n();
        let acc_stride = places.len() * PANEL;
        let sums = (&acc[..rows.len() * acc_stride], acc_stride);
        let columns = places.start * PANEL..(places.end * PANEL).min(n);
        match self {
            Self::Output(d) | Self::Rounded(d) | Self::Added(d) => {
                let place = (rows.start * n + columns.start, n);
                let channels = weights.channels(columns);
                let write = match (self, weights.has_four_bits()) {
                    (Self::Added(_), true) => added_rounded_epilogue,
                    (Self::Added(_), false) => added_epilogue,
                    (Self::Rounded(_), _) => rounded_epilogue,
                    _ => epilogue,
                };
                write(isa, sums, scales, channels, d, place);
            }
            Self::Gated(d, f) => {
                let gate = columns.start / 2..columns.end / 2;
                let place = (rows.start * (n / 2) + gate.start, n / 2);
                let up = n / 2 + gate.start..n / 2 + gate.end;
                let channels = [weights.channels(gate), weights.channels(up)];
                gated_epilogue(isa, sums, scales, channels, *f, d, place);
            }
            Self::Sums(d) => {
                for (row, acc) in rows.zip(sums.0.chunks_exact(acc_stride)) {
                    let start = row * n;
                    // SAFETY: this task alone writes these rows and columns.
                    let d = unsafe { d.range(start + columns.start..start + columns.end) };
                    d.copy_from_slice(&acc[..columns.len()]);
                }
            }
        }
    }
}

per_isa! {
    /// `(acc as f32 * ta) * s1 + bias` for some rows; the first starts at `place.0` of D, whose rows are `place.1` long.
    /// The caller alone touches these rows and columns.
    fn epilogue(
        sums: (&[i32], usize),
        scales: &[f32],
        channels: (&[f32], &[f32]),
        d: &SharedSlice<'_, f32>,
        place: (usize, usize),
    ) = epilogue_lanes::<false, false>
}

per_isa! {
    /// The same, rounded to bfloat16.
    fn rounded_epilogue(
        sums: (&[i32], usize),
        scales: &[f32],
        channels: (&[f32], &[f32]),
        d: &SharedSlice<'_, f32>,
        place: (usize, usize),
    ) = epilogue_lanes::<false, true>
}

per_isa! {
    /// The same as `epilogue`, added to what is there.
    fn added_epilogue(
        sums: (&[i32], usize),
        scales: &[f32],
        channels: (&[f32], &[f32]),
        d: &SharedSlice<'_, f32>,
        place: (usize, usize),
    ) = epilogue_lanes::<true, false>
}

per_isa! {
    /// The same as `rounded_epilogue`, added to what is there.
    fn added_rounded_epilogue(
        sums: (&[i32], usize),
        scales: &[f32],
        channels: (&[f32], &[f32]),
        d: &SharedSlice<'_, f32>,
        place: (usize, usize),
    ) = epilogue_lanes::<true, true>
}

#[inline(always)]
fn epilogue_lanes<const ADDED: bool, const ROUNDED: bool>(
    (acc, acc_stride): (&[i32], usize),
    scales: &[f32],
    (s1, bias): (&[f32], &[f32]),
    d: &SharedSlice<'_, f32>,
    (start, n): (usize, usize),
) {
    let ahead = rows_ahead(scales.len(), start + scales.len() * n >= d.len());
    for (row, (acc, ta)) in acc.chunks_exact(acc_stride).zip(scales).enumerate() {
        // SAFETY: the calling task alone writes these rows and columns.
        let d = unsafe { row_of(d, start + row * n, s1.len(), n, ahead) };
        for (((d, acc), s1), bias) in d.iter_mut().zip(acc).zip(s1).zip(bias) {
            let product = (*acc as f32 * ta) * s1 + bias;
            let product = if ROUNDED { naive::to_bf16(product) } else { product };
            *d = if ADDED { *d + product } else { product };
        }
    }
}

per_isa! {
    /// `f(gate) * up`, each by the formula of `rounded_epilogue`, for some rows; `channels` of the gate and of up.
    fn gated_epilogue(
        sums: (&[i32], usize),
        scales: &[f32],
        channels: [(&[f32], &[f32]); 2],
        f: Activation,
        d: &SharedSlice<'_, f32>,
        place: (usize, usize),
    ) = gated_epilogue_lanes
}

#[inline(always)]
fn gated_epilogue_lanes(
    sums: (&[i32], usize),
    scales: &[f32],
    channels: [(&[f32], &[f32]); 2],
    f: Activation,
    d: &SharedSlice<'_, f32>,
    place: (usize, usize),
) {
    with_activation!(f, |f| gated_with(sums, scales, channels, f, d, place));
}

/// No closure: one that is called from several places is compiled by itself, for the least instruction set (prompts took 2.9 times as long).
#[inline(always)]
fn gated_with(
    (acc, acc_stride): (&[i32], usize),
    scales: &[f32],
    [(gate_s1, gate_bias), (up_s1, up_bias)]: [(&[f32], &[f32]); 2],
    f: Activation,
    d: &SharedSlice<'_, f32>,
    (start, n): (usize, usize),
) {
    let columns = |values| <[f32]>::as_chunks::<GATED_COLUMNS>(values).0;
    let (gate_s1, gate_bias) = (columns(gate_s1), columns(gate_bias));
    let (up_s1, up_bias) = (columns(up_s1), columns(up_bias));
    let ahead = rows_ahead(scales.len(), start + scales.len() * n >= d.len());
    for (row, (acc, ta)) in acc.chunks_exact(acc_stride).zip(scales).enumerate() {
        // SAFETY: the calling task alone writes these rows and columns.
        let d = unsafe { row_of(d, start + row * n, acc_stride / 2, n, ahead) };
        let (d, acc) = (
            d.as_chunks_mut::<GATED_COLUMNS>().0,
            acc.as_chunks::<{ 2 * GATED_COLUMNS }>().0,
        );
        for (run, (d, acc)) in d.iter_mut().zip(acc).enumerate() {
            for c in 0..GATED_COLUMNS {
                let gate = (acc[c] as f32 * ta) * gate_s1[run][c] + gate_bias[run][c];
                let up = (acc[GATED_COLUMNS + c] as f32 * ta) * up_s1[run][c] + up_bias[run][c];
                d[c] = naive::gate(f, naive::to_bf16(gate), naive::to_bf16(up));
            }
        }
    }
}

/// Columns of a row of D. The same columns `ahead` rows on are asked for if there are such: rows lie far apart, and each
/// store would wait for its own line.
///
/// # Safety
/// As for [`SharedSlice::range`].
#[inline(always)]
#[allow(clippy::mut_from_ref, reason = "disjoint parts of one exclusive borrow")]
unsafe fn row_of<'d>(
    d: &'d SharedSlice<'_, f32>,
    start: usize,
    len: usize,
    row_len: usize,
    ahead: usize,
) -> &'d mut [f32] {
    let is_there = start + ahead * row_len < d.len();
    // SAFETY: passed on.
    let d = unsafe { d.range(start..start + len) };
    if is_there {
        for column in (0..len).step_by(LINE_FLOATS) {
            prefetch_to_write(d.as_ptr().wrapping_add(ahead * row_len + column));
        }
    }
    d
}

/// How many rows ahead lines are asked for: two, or the next tile where a tile is finished at a time. Its sums take a
/// while, and what is added to would else be waited for (AVX2: 7 % of a product that adds).
#[inline(always)]
fn rows_ahead(rows: usize, is_last: bool) -> usize {
    match rows {
        2..=TILE_ROWS if !is_last => rows,
        _ => 2,
    }
}

/// Asks for a line that will be written; any address may be named. It is the ordinary prefetch: `prefetchw` is not among what a
/// compiler may assume of x86-64.
#[inline(always)]
fn prefetch_to_write<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may point anywhere.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
