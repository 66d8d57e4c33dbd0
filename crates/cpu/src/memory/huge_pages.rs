//! Huge pages for activations: products of many tokens write rows that lie tens of kilobytes apart, a page each.

#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;

#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};

#[cfg(target_os = "linux")]
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Smaller buffers would waste much of their pages.
#[cfg(target_os = "linux")]
const LEAST_ADVISED_BYTES: usize = 4 * HUGE_PAGE_BYTES;

/// An empty vector with room for `capacity` elements, in huge pages where the system has them.
pub(crate) fn in_huge_pages<T>(capacity: usize) -> Vec<T> {
    let mut new = Vec::with_capacity(capacity);
    #[cfg(target_os = "linux")]
    advise_huge_pages(new.spare_capacity_mut());
    new
}

/// Advice for a buffer of activations: huge pages where it holds some, before it is first written.
#[cfg(target_os = "linux")]
fn advise_huge_pages<T>(buffer: &mut [MaybeUninit<T>]) {
    let bytes = std::mem::size_of_val(buffer);
    let start = buffer.as_mut_ptr().cast::<u8>();
    let to_huge_page = start.align_offset(HUGE_PAGE_BYTES);
    if bytes < LEAST_ADVISED_BYTES || to_huge_page > bytes {
        return;
    }
    let huge_bytes = (bytes - to_huge_page) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    // SAFETY: whole pages inside the buffer; the advice changes no contents.
    let _ = unsafe { madvise(start.add(to_huge_page).cast(), huge_bytes, Advice::LinuxHugepage) };
}
