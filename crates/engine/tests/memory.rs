//! Mapped pages are given back, so that a model larger than memory can be read block by block.
#![cfg(target_os = "linux")]

use std::path::Path;

use dualgrain_engine::Weights;

/// Bytes of mapped files that are resident in this process.
fn resident_file_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    1024 * kibibytes
}

#[test]
fn released_pages_leave_resident_memory_and_read_the_same_again() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/llama-tiny"));
    let weights = Weights::open(dir).unwrap();
    let sums = || {
        let bytes = |name: &String| {
            weights
                .raw(name)
                .unwrap()
                .2
                .iter()
                .map(|&b| u64::from(b))
                .sum::<u64>()
        };
        weights.names().iter().map(bytes).collect::<Vec<_>>()
    };
    let first = sums();
    let touched = resident_file_bytes();
    weights.release_pages();
    let released = touched - resident_file_bytes();
    assert!(
        released > weights.size_bytes() * 9 / 10,
        "only {released} bytes were released"
    );
    assert_eq!(sums(), first);
}
