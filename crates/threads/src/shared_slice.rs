//! Handing disjoint parts of one buffer to several threads.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that threads may cut disjoint ranges from.
pub struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` in parts; whoever calls `range` vouches that the parts do not overlap.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    /// The whole of `buffer`.
    pub fn new(buffer: &'a mut [T]) -> Self {
        Self {
            start: buffer.as_mut_ptr(),
            len: buffer.len(),
            buffer: PhantomData,
        }
    }

    /// Elements of the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of the buffer, which is still the one buffer: ranges of both must not overlap.
    ///
    /// # Panics
    /// When the range is not inside the buffer.
    pub fn part(&self, range: Range<usize>) -> SharedSlice<'_, T> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
        SharedSlice {
            // SAFETY: inside the buffer or one past it (checked).
            start: unsafe { self.start.add(range.start) },
            len: range.len(),
            buffer: PhantomData,
        }
    }

    /// The elements of `range`.
    ///
    /// # Panics
    /// When the range is not inside the buffer.
    ///
    /// # Safety
    /// No other thread holds an overlapping range at the same time.
    #[allow(clippy::mut_from_ref, reason = "disjoint parts of one exclusive borrow")]
    pub unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
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
    /// # Panics
    /// When the index is beyond the buffer.
    ///
    /// # Safety
    /// As for [`Self::range`], for every element written through the pointer.
    pub unsafe fn pointer(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "{index} of {}", self.len);
        // SAFETY: inside the buffer or one past it (checked).
        unsafe { self.start.add(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_where_its_range_does_and_ends_with_it() {
        let mut buffer = [0; 10];
        let whole = SharedSlice::new(&mut buffer);
        let part = whole.part(3..7);
        assert_eq!(part.len(), 4);
        // SAFETY: nothing else holds the buffer.
        unsafe { part.range(1..4).fill(1) };
        assert!(whole.part(10..10).is_empty());
        assert_eq!(buffer, [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]);
    }

    #[test]
    #[should_panic = "3..11 of 10"]
    fn a_part_beyond_the_buffer_is_refused() {
        SharedSlice::new(&mut [0; 10]).part(3..11);
    }
}
