//! What a process took at most.

use std::process::Child;
use std::time::Duration;

/// How often the system is asked: what a process takes last is not told once it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until a child process ends, and tells the bytes that it had resident at most; 0 where the system does not say so (Linux does).
///
/// # Panics
/// The child can not be waited for.
pub fn peak_resident_bytes(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    while child.try_wait().expect("a child process").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak_bytes = peak_bytes.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(LOOK_EVERY);
    }
    peak_bytes
}
