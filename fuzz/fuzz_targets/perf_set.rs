#![no_main]
#[path = "../entry_points.rs"]
#[allow(dead_code)]
mod entry_points;

use std::sync::LazyLock;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry_points::perf_set(FOLDER.path(), data));
