//! What a card does in time and power: times of launches, steady load, NVML's counters, the best rate of its memory.

mod nvml;
mod read_memory;
mod steady;
mod timing;

pub use nvml::{Nvml, NvmlDevice, Utilization, throttle_words};
pub use read_memory::{read_bytes_per_s, read_memory_source};
pub use steady::Steady;
pub use timing::{rotation_copies, time_once_s, times_s};
