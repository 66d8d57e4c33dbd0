//! No prompt is cut without a word: what does not fit the model's positions is refused by every verb, with both numbers. The server's interfaces are
//! held to it beside their crate.

mod program;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use program::{failure, scratch, stderr, text};
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/llama-tiny");

fn positions() -> usize {
    let config = fs::read(Path::new(MODEL).join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    config["max_position_embeddings"].as_u64().unwrap() as usize
}

/// More tokens than the model has positions for.
fn too_long() -> String {
    "The sea was calm. ".repeat(positions())
}

#[test]
fn generate_refuses_a_prompt_that_does_not_fit() {
    let file = scratch("prompts", "generate").join("prompt.txt");
    fs::write(&file, too_long()).unwrap();
    let message = failure(&["generate", MODEL, "--file", text(&file), "--device", "cpu"]);
    assert!(
        message.contains(&format!("the context holds {}", positions())),
        "{message}"
    );
    let short = [
        "generate",
        MODEL,
        "The old captain said",
        "--context",
        "3",
        "--device",
        "cpu",
    ];
    assert!(failure(&short).contains("the context holds 3: --context takes more"));
}

#[test]
fn chat_refuses_a_message_that_does_not_fit_and_keeps_the_conversation() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(["chat", MODEL, "--device", "cpu", "--max-tokens", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = format!("{}\nHi\n", too_long());
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let message = stderr(&output);
    assert!(message.contains("but the context holds"), "{message}");
    assert!(message.contains("1 of 2 messages got no answer"), "{message}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn bench_and_eval_refuse_lengths_that_do_not_fit() {
    let tokens = (positions() + 1).to_string();
    let bench = ["bench", MODEL, "-p", &tokens, "-n", "0", "--device", "cpu"];
    let eval = ["eval", MODEL, "--context", &tokens, "--device", "cpu"];
    for arguments in [&bench[..], &eval[..]] {
        let message = failure(arguments);
        assert!(
            message.contains(&positions().to_string()),
            "{arguments:?}: {message}"
        );
    }
}
