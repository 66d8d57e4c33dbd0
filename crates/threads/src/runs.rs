//! A run: the neighbouring chunks of a job that one thread takes first.

use std::ops::Range;

use crate::sync::{AtomicU64, Ordering};

/// Chunks that are left: the first in the low half, the end in the high one. A cache line of its own.
#[repr(align(128))]
pub(crate) struct Run(AtomicU64);

impl Run {
    pub(crate) fn empty() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn set(&self, chunks: Range<usize>) {
        self.0
            .store(chunks.start as u64 | (chunks.end as u64) << 32, Ordering::Relaxed);
    }

    /// Takes the first chunk that is left, or the last.
    pub(crate) fn take(&self, last: bool) -> Option<usize> {
        let step = |left: u64| {
            let (start, end) = (left & u64::from(u32::MAX), left >> 32);
            let rest = if last {
                start | end.saturating_sub(1) << 32
            } else {
                left + 1
            };
            (start < end).then_some(rest)
        };
        let left = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .ok()?;
        Some(match last {
            true => (left >> 32) as usize - 1,
            false => (left & u64::from(u32::MAX)) as usize,
        })
    }
}

/// The chunks of a thread's run.
pub(crate) fn run_of(thread: usize, num_threads: usize, num_chunks: usize) -> Range<usize> {
    let start = |thread| thread * num_chunks / num_threads;
    start(thread)..start(thread + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_all_chunks_in_order() {
        for (num_threads, num_chunks) in [(1, 0), (1, 7), (2, 1), (3, 2), (3, 100), (7, 5)] {
            let chunks: Vec<usize> = (0..num_threads)
                .flat_map(|thread| run_of(thread, num_threads, num_chunks))
                .collect();
            assert_eq!(chunks, (0..num_chunks).collect::<Vec<_>>());
        }
    }
}
