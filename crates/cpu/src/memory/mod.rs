//! Memory for weights and activations: `aligned` buffers begin on a cache line, `arena` cuts packed weights from huge pages,
//! `huge_pages` asks for them for activations.

pub(crate) mod aligned;
#[cfg(target_os = "linux")]
pub(crate) mod arena;
pub(crate) mod huge_pages;
pub(crate) mod prefetch;
