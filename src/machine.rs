//! Facts about the machine and this process, read from Linux's /proc; `None` elsewhere.

use std::fs;

/// Main memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Installed.
    pub total_bytes: u64,
    /// What a new program can take without swapping.
    pub available_bytes: u64,
}

/// Main memory of the machine.
pub fn memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some(Memory {
        total_bytes: kilobytes(&text, "MemTotal:")?,
        available_bytes: kilobytes(&text, "MemAvailable:")?,
    })
}

/// Largest resident memory of this process so far, mapped file pages included.
pub fn peak_resident_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

/// The value of `key` in a /proc table whose unit is kB (1,024 bytes).
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}
