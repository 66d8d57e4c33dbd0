//! Runs the commands of README.md: every line of a `console` block that starts with `$ dualgrain` or
//! `$ cargo run --release -- `, in order, in a scratch folder. Lines after `#` are comments for people.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Commands of the README that can run anywhere: those on the bundled model.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            let command = command.split("  #").next().unwrap_or(command).trim();
            let arguments = command
                .strip_prefix("dualgrain ")
                .or(command.strip_prefix("cargo run --release -- "));
            commands.extend(arguments.map(str::to_owned));
        }
    }
    commands
}

/// Words of a shell line; double quotes keep spaces together.
fn words(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    let mut words = Vec::new();
    for (index, piece) in pieces {
        match index % 2 {
            1 => words.push(piece.to_owned()),
            _ => words.extend(piece.split_whitespace().map(str::to_owned)),
        }
    }
    words
}

#[test]
fn the_commands_of_the_readme_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert!(
        !readme.contains("_TABLE"),
        "a table of the README was never filled in"
    );
    let commands = commands(&readme);
    assert!(
        commands.len() >= 5,
        "the README shows too few commands: {commands:?}"
    );
    let scratch = scratch(root);
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
            .args(words(&command))
            .current_dir(&scratch)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "dualgrain {command}: {message}");
    }
}

/// An empty folder with what README's commands read: the bundled model and the H200's measured set.
fn scratch(root: &Path) -> PathBuf {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let _ = std::fs::remove_dir_all(&scratch);
    for folder in ["models/llama-tiny", "bench/data/h200"] {
        let copy = scratch.join(folder);
        std::fs::create_dir_all(&copy).unwrap();
        for entry in std::fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    scratch
}
