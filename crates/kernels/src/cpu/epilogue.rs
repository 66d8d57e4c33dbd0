//! Integer sums to float outputs.

use super::isa::per_isa;
use super::share::Shared;

/// Floats of a cache line.
const LINE_FLOATS: usize = 16;

per_isa! {
    /// `(acc as f32 * ta) * s1 + bias` for some rows; the first starts at `place.0` of D, whose rows are `place.1` long.
    /// The caller alone touches these rows and columns.
    pub(super) fn epilogue(
        sums: (&[i32], usize),
        scales: &[f32],
        channels: (&[f32], &[f32]),
        d: &Shared<'_, f32>,
        place: (usize, usize),
    ) = epilogue_lanes
}

#[inline(always)]
fn epilogue_lanes(
    (acc, acc_stride): (&[i32], usize),
    scales: &[f32],
    (s1, bias): (&[f32], &[f32]),
    d: &Shared<'_, f32>,
    (start, n): (usize, usize),
) {
    for (row, (acc, ta)) in acc.chunks_exact(acc_stride).zip(scales).enumerate() {
        let start = start + row * n;
        // SAFETY: the calling task alone writes these rows and columns.
        let d = unsafe { d.range(start..start + s1.len()) };
        // Rows of D lie far apart: a line is asked for two rows ahead, or each store would wait for its own.
        for ahead in (0..s1.len()).step_by(LINE_FLOATS) {
            prefetch_to_write(d.as_ptr().wrapping_add(2 * n + ahead));
        }
        for (((d, acc), s1), bias) in d.iter_mut().zip(acc).zip(s1).zip(bias) {
            *d = (*acc as f32 * ta) * s1 + bias;
        }
    }
}

/// Asks for a line that will be written; any address may be named.
#[inline(always)]
fn prefetch_to_write<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may point anywhere; where the processor does not know this one, it does nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
