//! The one place outside the kernels with `unsafe`: memory-mapping a checkpoint file.
#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe: another process could change or truncate it"
)]

use std::fs::File;
use std::io;
use std::path::Path;

/// A file mapped for reading.
#[derive(Debug)]
pub(crate) struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps a whole file; an empty one is an empty mapping.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only, and only bytes are ever read from it, which are valid in any
        // state. What remains is a file changed by others while it is open: as for every program that maps
        // checkpoints, truncating one under a running process kills that process.
        unsafe { memmap2::Mmap::map(&file) }.map(Self)
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lets the system take back the pages read so far; they are read again from the file when touched.
    pub fn release_pages(&self) {
        #[cfg(unix)]
        {
            // SAFETY: DONTNEED discards pages, which loses data only in a mapping that was written to; this one is
            // read-only and backed by its file, so the next access finds the same bytes.
            let advised = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Advice that the system refuses costs memory, not correctness.
            let _ = advised;
        }
    }
}
