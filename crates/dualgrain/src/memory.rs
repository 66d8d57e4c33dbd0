//! The memory of this machine, read from Linux's /proc; `None` elsewhere.

use std::fs;

/// Main memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Installed.
    pub total_bytes: u64,
    /// What a new program can take without swapping.
    pub available_bytes: u64,
    /// Swap space that is free.
    pub swap_bytes: u64,
}

/// Main memory of the machine, or what this process may take of it (`ulimit -v`).
pub fn memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let left = address_space_left().unwrap_or(u64::MAX);
    let available_bytes = kilobytes(&text, "MemAvailable:")?.min(left);
    Some(Memory {
        total_bytes: kilobytes(&text, "MemTotal:")?,
        available_bytes,
        swap_bytes: kilobytes(&text, "SwapFree:")
            .unwrap_or(0)
            .min(left - available_bytes),
    })
}

/// Addresses that this process may still take; `None` without a limit.
fn address_space_left() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    let taken = kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
    Some(limit.saturating_sub(taken))
}

/// The value of `key` in a /proc table whose unit is kB (1,024 bytes).
pub fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}
