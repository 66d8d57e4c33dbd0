//! Public inputs that failed once, kept outside the repository (`../shared/cases`): each case is a script that says so while its
//! fault is there. What they stand for has tests of its own here (`tests/folders` and beside the code); these are the inputs themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use dualgrain_testing::skipped;

/// Cases whose scripts measure for longer than a test may; `--ignored` runs them.
const LONG: [&str; 2] = ["cost_interrupt_rc", "cost_rapl_double_count"];

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

/// What a case's script says, where its fault is there.
fn fault(case: &str) -> Option<String> {
    let output = Command::new("bash")
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
    // Some scripts end with a search that finds nothing where all is well: the word counts, not the exit code.
    told.contains("FAULT is there").then_some(told)
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
