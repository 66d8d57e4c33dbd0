//! The program as a user starts it, and what it answered.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Runs it to its end.
pub fn dualgrain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(arguments)
        .output()
        .expect("starting dualgrain")
}

/// What a run wrote to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

/// What a run told.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The object a successful command printed.
pub fn json(arguments: &[&str]) -> Value {
    let output = dualgrain(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {message}");
    serde_json::from_str(&stdout(&output)).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// The message of a command that failed with exit code 1.
pub fn failure(arguments: &[&str]) -> String {
    let output = dualgrain(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    let told = message.lines().any(|line| line.starts_with("error: "));
    assert!(told && !message.contains("panicked"), "{message}");
    message
}

/// `serve` with the bundled model on a free port, its log sent to `log`, and the object it told at its start.
pub fn start_server(more: &[&str], log: Stdio) -> (Child, Value) {
    started(server_command(more).stderr(log))
}

/// How that server is started.
pub fn server_command(more: &[&str]) -> Command {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/llama-tiny");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
    command
        .args([
            "serve",
            model,
            "--port",
            "0",
            "--json",
            "--device",
            "cpu",
            "--threads",
            "1",
        ])
        .args(more)
        .stdout(Stdio::piped());
    command
}

/// Starts a server; the object it told at its start.
pub fn started(command: &mut Command) -> (Child, Value) {
    let mut child = command.spawn().expect("starting a server");
    let lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
    let mut told = String::new();
    for line in lines {
        told += &line.expect("a line");
        if told.ends_with('}') {
            break;
        }
    }
    (child, serde_json::from_str(&told).expect("an object"))
}

/// An empty folder of a test's own; `file` is the test file's name.
pub fn scratch(file: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
