//! Facts about the machine and this process, read from Linux's /proc; `None` elsewhere.

use std::fs;

use dualgrain::memory::kilobytes;
pub use dualgrain::memory::memory;

use crate::cli::terminal::Terminal;

/// Largest resident memory of this process so far, mapped file pages included.
pub fn peak_resident_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Whether [`forget_peak`] works here; asking forgets it.
pub fn can_forget_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// [`peak_resident_bytes`] counts from now on.
pub fn forget_peak() {
    // 5 is the kernel's word for it. Where it is refused the peak stays one of the whole process, which is true as well.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The largest cache of the first core.
pub fn last_level_cache_bytes() -> Option<usize> {
    dualgrain_cpu::last_level_cache_bytes()
}

/// Threads beyond the cores take turns, and those that wait for work take the others' time.
pub fn warn_of_too_many_threads(threads: usize, terminal: &Terminal) {
    if threads > cores() {
        terminal.say(&format!(
            "warning: {threads} threads on {} cores are slower than one a core",
            cores()
        ));
    }
}

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// As many threads as were asked for; one a core where 0 were.
pub fn threads(asked: usize) -> usize {
    if asked == 0 { cores() } else { asked }
}

/// Cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}
