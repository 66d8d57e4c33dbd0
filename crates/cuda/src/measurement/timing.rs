//! Times of launches as a model would see them: one graph of many, operands rotated past the caches.

use crate::driver::{Event, Gpu, Graph};
use crate::error::CudaError;

/// A repetition runs about this long, and so does the warm-up before it: right after another library a product runs up to 20 % slow.
const REPEAT_S: f64 = 0.05;
/// Launches of a graph, at most.
const MOST_LAUNCHES: usize = 2_000;
/// Copies of an operand pass the second-level cache this many times.
const ROTATION: usize = 3;

/// How many copies of an operand to rotate through, so that no launch finds its own in a cache.
pub fn rotation_copies(gpu: &Gpu, size_bytes: usize) -> usize {
    (ROTATION * gpu.info().l2_bytes)
        .div_ceil(size_bytes.max(1))
        .max(2)
}

/// Seconds of one launch, a repetition each, ascending. `launch(i)` launches with copy `i` of its operands.
///
/// # Errors
/// A launch that fails.
pub fn times_s(
    gpu: &Gpu,
    repeats: usize,
    copies: usize,
    launch: impl Fn(usize) -> Result<(), CudaError>,
) -> Result<Vec<f64>, CudaError> {
    let launch = &launch;
    let record = |count: usize| Graph::record(gpu, move || (0..count).try_for_each(|i| launch(i % copies)));
    let first = record(copies)?;
    first.time_s(1)?;
    let estimate_s = first.time_s(1)? / copies as f64;
    let launches = ((REPEAT_S / estimate_s.max(1e-7)) as usize).min(MOST_LAUNCHES);
    let count = launches.next_multiple_of(copies).max(copies);
    let graph = record(count)?;
    let replays = (REPEAT_S / (estimate_s * count as f64)).ceil().max(1.0) as usize;
    graph.time_s(replays)?;
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        times.push(graph.time_s(replays)? / (replays * count) as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Seconds of `launches`, once, by events around them.
///
/// # Errors
/// A launch that failed.
pub fn time_once_s(gpu: &Gpu, launches: impl FnOnce() -> Result<(), CudaError>) -> Result<f64, CudaError> {
    let (start, end) = (Event::new(gpu)?, Event::new(gpu)?);
    start.record()?;
    launches()?;
    end.record()?;
    end.since_s(&start)
}
