//! Attention over an INT8 cache, in integers.

pub(super) mod products;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;
