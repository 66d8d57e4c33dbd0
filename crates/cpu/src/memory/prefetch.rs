//! Asks for memory before it is read: on a server the last-level cache is as slow as the main memory of a small machine, and a product
//! that waits for its next operand runs at two thirds of its speed.

/// Asks for `values` in the second-level cache.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let start = values.as_ptr().cast::<i8>();
        for offset in (0..size_of_val(values)).step_by(LINE_BYTES) {
            // SAFETY: a hint; the address lies in the slice.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Part `part` of `parts` of `values`, about.
#[inline(always)]
pub(crate) fn part_of<T>(values: &[T], part: usize, parts: usize) -> &[T] {
    &values[values.len() * part / parts..values.len() * (part + 1) / parts]
}
