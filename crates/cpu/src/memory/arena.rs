//! Memory for packed weights: cut from chunks of whole huge pages.
//!
//! A token reads every weight once, in order: with 4 KB pages the translation of addresses costs a seventh of the
//! bandwidth (measured: one thread 15.5 against 17.5 GB/s, two 30 against 34). A layer of its own is too small to fill
//! huge pages, and what the allocator hands out again has small ones already, so layers are cut one after the other
//! from chunks that are asked of the system as a whole. A chunk goes back when the last of its layers does, the current
//! one when the next begins. What is dropped at the end of the current chunk is cut again: a quantizer packs many a
//! matrix for one product, between layers that stay.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::huge_pages::HUGE_PAGE_BYTES;

/// Address space of a chunk; memory is taken as it is written, so an unused rest costs nothing.
const CHUNK_BYTES: usize = 64 << 20;
/// Pieces begin on a cache line.
const PIECE_ALIGNMENT: usize = 64;

/// The chunk that pieces are cut from at present.
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

struct Current {
    chunk: Arc<Chunk>,
    /// Pieces end before this byte.
    used: usize,
    /// Bytes from here on have never been a part of a piece, and are zeros.
    untouched_from: usize,
    /// Places before `used` whose pieces are gone.
    free: Vec<Range<usize>>,
}

/// A mapping, unmapped when its last piece is dropped.
#[derive(Debug)]
struct Chunk {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    /// Its first huge page.
    start: NonNull<u8>,
    size_bytes: usize,
}

/// Part of a chunk: zeros, aligned to 64 bytes.
#[derive(Debug)]
pub(crate) struct Piece {
    start: NonNull<u8>,
    place: Range<usize>,
    /// Keeps the mapping alive.
    chunk: Arc<Chunk>,
}

// SAFETY: a chunk is an address range; nobody reads or writes through it, only through pieces, which do not overlap.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}
// SAFETY: a piece is owned memory.
unsafe impl Send for Piece {}
// SAFETY: as above; a shared piece is only read.
unsafe impl Sync for Piece {}

impl Piece {
    /// `size_bytes` zeros; `None` when the system has no room.
    pub(crate) fn new(size_bytes: usize) -> Option<Self> {
        if size_bytes > CHUNK_BYTES / 2 {
            let chunk = Arc::new(Chunk::new(size_bytes)?);
            return Some(Self::at(chunk, 0..size_bytes));
        }
        let mut current = lock();
        let place = match current.as_mut().and_then(|current| current.take(size_bytes)) {
            Some(place) => place,
            None => {
                // The old chunk goes first when nothing lives in it.
                *current = None;
                current.insert(Current::new()?).take(size_bytes)?
            }
        };
        let chunk = Arc::clone(&current.as_ref()?.chunk);
        Some(Self::at(chunk, place))
    }

    fn at(chunk: Arc<Chunk>, place: Range<usize>) -> Self {
        Self {
            // SAFETY: inside the chunk.
            start: unsafe { chunk.start.add(place.start) },
            place,
            chunk,
        }
    }

    /// The first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut current = lock();
        let current = current.as_mut();
        if let Some(current) = current.filter(|current| Arc::ptr_eq(&current.chunk, &self.chunk)) {
            current.give_back(self.place.clone());
        }
    }
}

fn lock() -> MutexGuard<'static, Option<Current>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Current {
    /// A chunk without pieces; `None` when the system has no room.
    fn new() -> Option<Self> {
        Some(Self {
            chunk: Arc::new(Chunk::new(CHUNK_BYTES)?),
            used: 0,
            untouched_from: 0,
            free: Vec::new(),
        })
    }

    /// Where the next piece lies, if it fits; its bytes are zeros.
    fn take(&mut self, size_bytes: usize) -> Option<Range<usize>> {
        let start = self.used;
        let end = start.checked_add(size_bytes)?.next_multiple_of(PIECE_ALIGNMENT);
        if end > self.chunk.size_bytes {
            return None;
        }
        let used_before = end.min(self.untouched_from).saturating_sub(start);
        // SAFETY: inside the chunk, behind every piece that lives. The lock under which the pieces that lay here were given back orders
        // what their owners wrote before this.
        unsafe { self.chunk.start.add(start).write_bytes(0, used_before) };
        self.used = end;
        self.untouched_from = self.untouched_from.max(end);
        Some(start..end)
    }

    /// Takes back the place of a piece that is gone; what ends the chunk is free for the next piece.
    fn give_back(&mut self, place: Range<usize>) {
        self.free.push(place);
        while let Some(last) = self.free.iter().position(|place| place.end == self.used) {
            self.used = self.free.swap_remove(last).start;
        }
    }
}

impl Chunk {
    fn new(size_bytes: usize) -> Option<Self> {
        let size_bytes = size_bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
        let mapping_bytes = size_bytes.checked_add(HUGE_PAGE_BYTES)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the system's choice.
        let mapping =
            unsafe { mmap_anonymous(std::ptr::null_mut(), mapping_bytes, access, MapFlags::PRIVATE) };
        let mapping = NonNull::new(mapping.ok()?.cast::<u8>())?;
        let to_huge_page = mapping.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: the mapping is a huge page longer than the chunk.
        let start = unsafe { mapping.add(to_huge_page) };
        // SAFETY: inside the mapping; the advice changes no contents, and a system that cannot follow it serves as well.
        let _ = unsafe { madvise(start.as_ptr().cast(), size_bytes, Advice::LinuxHugepage) };
        Some(Self {
            mapping,
            mapping_bytes,
            start,
            size_bytes,
        })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, whose pieces are gone. An error would leave it mapped, which harms nobody.
        let _ = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_chunk_is_cut_again_in_whatever_order_it_goes() {
        let mut current = Current::new().unwrap();
        let kept = current.take(100).unwrap();
        assert_eq!(kept, 0..128);
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let places = [1 << 20, 64, 3 << 20].map(|size| current.take(size).unwrap());
            for index in order {
                current.give_back(places[index].clone());
            }
            assert_eq!((current.used, current.free.len()), (128, 0), "{order:?}");
        }
        let later = current.take(64).unwrap();
        current.give_back(kept);
        assert_eq!(current.used, 192, "a piece behind it lives");
        current.give_back(later);
        assert_eq!(current.used, 0);
    }

    #[test]
    fn what_is_cut_again_is_zeros() {
        let mut current = Current::new().unwrap();
        let bytes = |current: &Current, place: &Range<usize>| {
            // SAFETY: a place of the chunk that was taken, seen by this thread alone.
            unsafe {
                std::slice::from_raw_parts_mut(current.chunk.start.as_ptr().add(place.start), place.len())
            }
        };
        for size in [64, 4096, 128, 8192] {
            let place = current.take(size).unwrap();
            assert!(bytes(&current, &place).iter().all(|&byte| byte == 0), "{size}");
            bytes(&current, &place).fill(7);
            current.give_back(place);
        }
    }

    #[test]
    fn pieces_are_zeros_of_their_own_also_in_memory_that_was_used_before() {
        for _ in 0..3 {
            let pieces: Vec<Piece> = [1, 63, 64, 5 << 20, 40 << 20, 30 << 20, 20 << 20]
                .into_iter()
                .zip(1..)
                .map(|(size, value)| {
                    let piece = Piece::new(size).unwrap();
                    assert_eq!(piece.start().align_offset(PIECE_ALIGNMENT), 0);
                    // SAFETY: the piece has `size` bytes.
                    let bytes = unsafe { std::slice::from_raw_parts_mut(piece.start().as_ptr(), size) };
                    assert!(bytes.iter().all(|&byte| byte == 0));
                    bytes.fill(value);
                    piece
                })
                .collect();
            for (piece, value) in pieces.iter().zip(1..) {
                // SAFETY: every piece has a byte.
                assert_eq!(unsafe { piece.start().read() }, value, "written by nobody else");
            }
        }
    }
}
