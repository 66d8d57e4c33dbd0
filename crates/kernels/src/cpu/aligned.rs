//! A buffer that starts on a cache line, so that no 64-byte load of a packed panel straddles two.

use std::ops::{Deref, DerefMut};

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

const LINE_BYTES: usize = 64;

/// A fixed-length buffer whose first element is aligned to 64 bytes.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    storage: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy> Aligned<T> {
    /// `len` copies of `value`.
    pub(crate) fn filled(value: T, len: usize) -> Self {
        let slack = LINE_BYTES / size_of::<T>();
        let storage = vec![value; len + slack];
        let start = storage.as_ptr().align_offset(LINE_BYTES).min(slack);
        Self { storage, start, len }
    }
}

impl<T: Zeroable> Aligned<T> {
    /// `len` zeros, straight from the system: memory is taken as it is written. `None` when there is not enough.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let slack = LINE_BYTES / size_of::<T>();
        let storage: Vec<T> = try_zeroed_vec(len.checked_add(slack)?).ok()?;
        let start = storage.as_ptr().align_offset(LINE_BYTES).min(slack);
        Some(Self { storage, start, len })
    }
}

impl<T: Copy> Aligned<T> {
    /// The first `len` elements of a buffer that is made anew (of `value`) when it is too short; contents are what they
    /// were otherwise.
    pub(crate) fn at_least(buffer: &mut Option<Self>, value: T, len: usize) -> &mut [T] {
        if buffer.as_ref().is_none_or(|buffer| buffer.len < len) {
            // The old one goes first, so that both need not live at once.
            *buffer = None;
        }
        &mut buffer.get_or_insert_with(|| Self::filled(value, len))[..len]
    }
}

impl<T> Aligned<T> {
    /// Bytes of the buffer.
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.storage[self.start..self.start + self.len]
    }
}
