//! A buffer that starts on a cache line, so that no 64-byte load of a packed panel straddles two.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;
use dualgrain_device::DeviceError;

#[cfg(target_os = "linux")]
use super::arena::Piece;

const LINE_BYTES: usize = 64;

/// A fixed-length buffer whose first element is aligned to 64 bytes.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    start: NonNull<T>,
    len: usize,
    /// What the elements live in.
    _storage: Storage<T>,
}

#[derive(Debug)]
enum Storage<T> {
    Heap {
        _elements: Vec<T>,
    },
    #[cfg(target_os = "linux")]
    Arena {
        _piece: Piece,
    },
}

// SAFETY: the elements are owned, as those of a `Vec`.
unsafe impl<T: Send> Send for Aligned<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Aligned<T> {}

impl<T: Copy> Aligned<T> {
    /// `len` copies of `value`.
    pub(crate) fn filled(value: T, len: usize) -> Self {
        Self::in_heap(vec![value; len + LINE_BYTES / size_of::<T>()], len)
    }
}

impl<T> Aligned<T> {
    /// The first aligned `len` of `elements`, which are a line more.
    fn in_heap(mut elements: Vec<T>, len: usize) -> Self {
        let slack = elements.len() - len;
        let first = elements.as_ptr().align_offset(LINE_BYTES).min(slack);
        Self {
            start: NonNull::from(&mut elements[first..]).cast(),
            len,
            _storage: Storage::Heap { _elements: elements },
        }
    }
}

impl<T: Zeroable> Aligned<T> {
    /// `len` zeros for packed weights of `device`, in huge pages where the system has them (`arena.rs`).
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub(crate) fn weights(device: &str, len: usize) -> Result<Self, DeviceError> {
        Self::in_arena(len).ok_or_else(|| DeviceError::OutOfMemory {
            what: "packed weights",
            device: device.to_owned(),
            size_bytes: len.saturating_mul(size_of::<T>()),
        })
    }

    #[cfg(target_os = "linux")]
    fn in_arena(len: usize) -> Option<Self> {
        let piece = Piece::new(len.checked_mul(size_of::<T>())?)?;
        Some(Self {
            start: piece.start().cast(),
            len,
            _storage: Storage::Arena { _piece: piece },
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn in_arena(len: usize) -> Option<Self> {
        Self::zeroed(len)
    }

    /// `len` zeros, straight from the system: memory is taken as it is written. `None` when there is not enough.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let slack = LINE_BYTES / size_of::<T>();
        let elements: Vec<T> = try_zeroed_vec(len.checked_add(slack)?).ok()?;
        Some(Self::in_heap(elements, len))
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
        // SAFETY: `len` elements of the storage, which this value owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}
