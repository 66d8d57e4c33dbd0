//! Handing disjoint parts of one buffer to several threads.

use std::marker::PhantomData;
use std::ops::Range;

use super::pool::Pool;

/// A mutable slice that threads may cut disjoint ranges from.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` in parts; whoever calls `range` vouches that the parts do not overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self {
            start: buffer.as_mut_ptr(),
            len: buffer.len(),
            buffer: PhantomData,
        }
    }

    /// Elements of the buffer.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other thread holds an overlapping range at the same time.
    #[allow(clippy::mut_from_ref, reason = "disjoint parts of one exclusive borrow")]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
        // SAFETY: inside the buffer (checked); the caller vouches for exclusiveness.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Pointer to element `index`, for kernels that write scattered pieces of a row.
    ///
    /// # Safety
    /// As for [`Self::range`], for every element written through the pointer.
    pub(crate) unsafe fn pointer(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "{index} of {}", self.len);
        // SAFETY: inside the buffer or one past it (checked).
        unsafe { self.start.add(index) }
    }
}

/// Splits `data` into chunks of `chunk` elements (the last may be shorter) and runs `f(chunk_idx, chunk)` on the pool.
pub(crate) fn for_each_chunk<T: Send>(
    pool: &Pool,
    data: &mut [T],
    chunk: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let (len, chunk) = (data.len(), chunk.max(1));
    let shared = Shared::new(data);
    pool.run(len.div_ceil(chunk), |chunk_idx| {
        let start = chunk_idx * chunk;
        // SAFETY: chunk ranges are disjoint and each index runs once.
        f(chunk_idx, unsafe {
            shared.range(start..(start + chunk).min(len))
        });
    });
}
