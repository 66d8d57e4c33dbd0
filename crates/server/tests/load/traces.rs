//! What requests leave in this process: descriptors, threads, tasks, memory.

use std::fs;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

const DEADLINE: Duration = Duration::from_secs(60);

/// What requests could leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traces {
    /// File descriptors that are open.
    descriptors: usize,
    /// Tasks of the server's runtime.
    tasks: usize,
}

impl Traces {
    /// Of this process and a server's runtime.
    pub fn of(runtime: &Runtime) -> Self {
        Self {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            tasks: runtime.metrics().num_alive_tasks(),
        }
    }

    /// Waits until there is no more than there was.
    #[track_caller]
    pub fn wait_until_gone(&self, runtime: &Runtime) {
        let begun = Instant::now();
        loop {
            let now = Self::of(runtime);
            if now.descriptors <= self.descriptors && now.tasks <= self.tasks {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{now:?} are left of {self:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Bytes of this process in memory.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}
