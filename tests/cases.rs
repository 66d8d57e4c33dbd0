//! Public inputs that failed once, kept outside the repository (`../shared/cases`): each case is a script that says so while its
//! fault is there. What they stand for has tests of its own here (`tests/folders` and beside the code); these are the inputs themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use dualgrain_testing::skipped;

/// Cases whose scripts measure for longer than a test may; `--ignored` runs them.
const LONG: [&str; 2] = ["cost_interrupt_rc", "cost_rapl_double_count"];

/// What is said where a fault is there, or where a script could not do its work.
const FAULTS: [&str; 4] = [
    "FAULT is there",
    "panicked at",
    "command not found",
    "Traceback (most recent call last)",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases")
}

/// Names of the cases that are there.
fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let with_script = entries.filter(|entry| entry.path().join("run.sh").is_file());
    let mut names: Vec<String> = with_script
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What a case's script says, where its fault is there or it could not look for it.
fn fault(case: &str) -> Option<String> {
    let output = Command::new("bash")
        // Some scripts end with a search that finds nothing where all is well: what follows them gives 0 then, and only then.
        .args(["-c", ". \"$0\"; exit 0"])
        .arg(folder().join(case).join("run.sh"))
        .env("DUALGRAIN", env!("CARGO_BIN_EXE_dualgrain"))
        .env(
            "MODEL",
            Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny"),
        )
        .output()
        .expect("starting bash");
    let told = [&output.stdout[..], &output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    let is_wrong = FAULTS.iter().any(|words| told.contains(words));
    (is_wrong || output.status.code() != Some(0)).then(|| format!("{}: {told}", output.status))
}

fn assert_mended(wanted: impl Fn(&str) -> bool) {
    let cases = cases();
    if cases.is_empty() {
        skipped("shared", "public inputs that failed once were not tried");
        return;
    }
    let faults: Vec<String> = cases
        .iter()
        .filter(|case| wanted(case))
        .filter_map(|case| Some(format!("{case}:\n{}", fault(case)?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn public_inputs_that_failed_once_fail_no_more() {
    assert_mended(|case| !LONG.contains(&case));
}

#[test]
#[ignore = "measures for a minute"]
fn sweeps_of_public_reports_fail_no_more() {
    assert_mended(|case| LONG.contains(&case));
}
