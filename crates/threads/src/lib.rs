//! Host threads: a pool whose workers share the chunks of one job at a time, and slices that threads may cut.
//!
//! Both the CPU's operations and the quantizer's search run on one [`Pool`], so that a process has no more threads than
//! it was given. `pool` hands out chunks, `runs` says which thread takes which chunks first, `prefetch` fetches what a
//! thread will read next, `shared_slice` cuts one buffer into disjoint parts. `sync` is what all of that shares and waits
//! with; `arenas` says where their memory comes from; `tests/loom.rs` runs it in every order of the threads' steps.

mod arenas;
mod pool;
mod prefetch;
mod runs;
mod shared_slice;
mod sync;

pub use arenas::share_one_arena;
pub use pool::Pool;
pub use prefetch::Stream;
pub use shared_slice::SharedSlice;

/// The example of the crate's README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
