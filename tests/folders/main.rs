//! What people bring: folders as other programs leave them work in every verb, or are refused in words that name the cause.

#[path = "../drawn/mod.rs"]
mod drawn;
mod foreign;
mod options;
#[path = "../program/mod.rs"]
mod program;
mod saved;
mod texts;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dualgrain_testing::copy_folder;
use program::{dualgrain, failure, stderr, stdout, text};
use serde_json::Value;

fn original() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny")
}

/// A copy of llama-tiny that a test may change.
fn folder(name: &str, change: impl FnOnce(&Path)) -> PathBuf {
    let folder = program::scratch("folders", name).join("model");
    copy_folder(&original(), &folder);
    change(&folder);
    folder
}

fn patch(folder: &Path, file: &str, fields: Value) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let object = value.as_object_mut().unwrap();
    object.extend(fields.as_object().unwrap().clone());
    object.retain(|_, value| !value.is_null());
    fs::write(path, value.to_string()).unwrap();
}

/// Tokens that a model gives, and what was said of its folder.
fn answer(folder: &Path, more: &[&str]) -> (Value, String) {
    let mut arguments = vec![
        "generate",
        text(folder),
        "The old captain",
        "--json",
        "--threads",
        "1",
    ];
    if !more.contains(&"--max-tokens") {
        arguments.extend(["--max-tokens", "4"]);
    }
    let output = dualgrain(&[&arguments[..], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    (report["tokens"].clone(), stderr(&output))
}

fn usual_answer() -> Value {
    answer(&original(), &[]).0
}

/// Verbs that judge a folder without running it.
fn judging(folder: &Path) -> [Vec<String>; 3] {
    let out = folder.with_file_name("out");
    [
        vec!["inspect", text(folder)],
        vec![
            "quantize",
            text(folder),
            "--out",
            text(&out),
            "--plan",
            "--threads",
            "1",
        ],
        vec!["cost", text(folder)],
    ]
    .map(|arguments| arguments.into_iter().map(str::to_owned).collect())
}

/// Every verb that judges a folder succeeds; returns what each said.
fn assert_judged(folder: &Path) -> Vec<String> {
    let said = judging(folder).into_iter().map(|arguments| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = dualgrain(&arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stderr(&output)
    });
    said.collect()
}

/// Every verb that judges a folder takes this one; returns what was said.
fn assert_taken(folder: &Path) -> String {
    let (tokens, said) = answer(folder, &[]);
    assert_eq!(tokens, usual_answer(), "{}", folder.display());
    assert_judged(folder);
    said
}

/// Every verb refuses it with the same words.
fn assert_refused(folder: &Path, words: &[&str]) {
    let generating = ["generate", text(folder), "x", "--threads", "1"];
    for arguments in [generating.map(str::to_owned).to_vec()]
        .into_iter()
        .chain(judging(folder))
    {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let message = failure(&arguments);
        assert!(
            words.iter().all(|word| message.contains(word)),
            "{arguments:?}: {message}"
        );
    }
}

fn generate_from_stdin(arguments: &[&str], input: &[u8]) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting dualgrain");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}
