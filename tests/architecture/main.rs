//! The house rules of DESIGN.md that a machine can check: which crate may use which, where unsafe may live, and
//! that files stay short and named by nouns.

use std::fs;
use std::path::{Path, PathBuf};

/// The only dependencies between the project's crates (DESIGN.md, "Layout").
const ARROWS: [(&str, &[&str]); 8] = [
    ("format", &[]),
    ("threads", &[]),
    ("device", &["format"]),
    ("cpu", &["device", "format", "threads"]),
    ("cuda", &["device", "format"]),
    ("engine", &["device", "format"]),
    ("quant", &["device", "engine", "format"]),
    ("perf", &["cpu", "cuda", "device", "format"]),
];

/// Longest source file, in lines.
const MAX_FILE_LINES: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn all_rust_files() -> Vec<PathBuf> {
    ["src", "crates", "tests", "examples"]
        .iter()
        .map(|f| root().join(f))
        .filter(|f| f.is_dir())
        .flat_map(|f| rust_files(&f))
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let crates = fs::read_dir(root().join("crates")).unwrap().count();
    assert_eq!(crates, ARROWS.len(), "a crate is missing from the arrow table");
    for (name, allowed) in ARROWS {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        let used = dependencies
            .lines()
            .filter_map(|line| line.strip_prefix("dualgrain-"));
        for other in used.map(|line| line.split(['.', ' ', '=']).next().unwrap()) {
            assert!(allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn unsafe_lives_in_the_devices_and_the_one_mapping() {
    for (name, _) in ARROWS {
        let lib = read(&root().join("crates").join(name).join("src/lib.rs"));
        match name {
            "threads" | "cpu" | "cuda" => {}
            "engine" => assert!(
                lib.contains("#![deny(unsafe_code)]"),
                "engine must deny unsafe code"
            ),
            _ => assert!(
                lib.contains("#![forbid(unsafe_code)]"),
                "{name} must forbid unsafe code"
            ),
        }
    }
    let allows = |path: &PathBuf| read(path).contains("allow(unsafe_code");
    let exceptions: Vec<_> = rust_files(&root().join("crates/engine/src"))
        .into_iter()
        .filter(allows)
        .collect();
    assert!(
        exceptions.len() <= 1,
        "only the memory mapping may be unsafe in engine: {exceptions:?}"
    );
}

#[test]
fn files_are_short_and_named_by_nouns() {
    for path in all_rust_files() {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            !["utils", "util", "common", "misc", "helpers", "helper"].contains(&stem),
            "{}",
            path.display()
        );
        let lines = read(&path).lines().count();
        assert!(
            lines <= MAX_FILE_LINES,
            "{} has {lines} lines, more than {MAX_FILE_LINES}",
            path.display()
        );
    }
}
