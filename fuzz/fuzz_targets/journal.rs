#![no_main]
#[path = "../entry_points.rs"]
#[allow(dead_code)]
mod entry_points;

use std::sync::LazyLock;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));
static WHOLE: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| entry_points::whole_journal(FOLDER.path()));

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry_points::journal(FOLDER.path(), &WHOLE, data));
