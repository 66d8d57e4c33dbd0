//! The log that the GPPerf paper (arXiv 2411.16954) published, judged by its own protocol and by honest ones.
//!
//! The paper's protocol: targets are clipped to their 1 % and 99 % quantiles over all rows, rows are split 80 to 20 at
//! random, and a random forest learns from sizes, block sizes, intensity, bytes and operations. But the block sizes and
//! layouts of the log never reached the kernel, so a random split trains on copies of the rows that it tests. The honest
//! splits keep all rows of a kernel run (sizes, kernel, alpha, beta), or of a shape, on one side, and clip nothing.

mod judgement;
mod log;
mod splits;

pub use judgement::{Judgement, NOTES, judge};
pub use log::{LogRow, read};
