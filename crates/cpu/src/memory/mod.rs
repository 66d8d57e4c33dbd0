//! Memory for weights and activations: on cache lines, and in huge pages where the system has them.

pub(crate) mod aligned;
#[cfg(target_os = "linux")]
pub(crate) mod arena;
pub(crate) mod huge_pages;
