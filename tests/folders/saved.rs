//! Folders of every family as transformers saves them (tests/folders/saved/README.md) go through every verb without an option, and their
//! texts become the tokens of transformers' tokenizers.

use std::fs;
use std::path::Path;
use std::process::Command;

use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain_testing::skipped;
use serde_json::Value;

use crate::drawn::{families, saved, write};
use crate::program::{self, dualgrain, stderr, text};

/// Families and tokenizers that are there at the least.
const FAMILIES: usize = 26;
const TOKENIZERS: usize = 12;

fn read(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tokens of every text are those in `ids.json`, and so is the text of every token.
fn assert_tokens(folder: &Path, expected: &Value, vocab_size: usize) {
    let tokenizer = Tokenizer::load(folder, vocab_size).unwrap();
    let rows = expected.as_array().unwrap();
    assert!(rows.len() >= 10);
    for row in rows {
        let input = row["text"].as_str().unwrap();
        let ids = |name: &str| -> Vec<u32> { serde_json::from_value(row[name].clone()).unwrap() };
        let place = format!("{}: {input:?}", folder.display());
        assert_eq!(tokenizer.encode(input, true).unwrap(), ids("ids"), "{place}");
        let plain = ids("without_special");
        assert_eq!(tokenizer.encode(input, false).unwrap(), plain, "{place}");
        assert_eq!(
            tokenizer.decode(&plain, false).unwrap(),
            row["decoded"],
            "{place}"
        );
    }
}

/// Runs a verb that must succeed.
fn assert_succeeds(arguments: &[&str]) {
    let output = dualgrain(arguments);
    let (said, told) = (program::stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
    assert!(!said.is_empty() && !said.contains("NaN"), "{arguments:?}: {said}");
}

/// Every verb takes the folder of a model and what is quantized of it, and no other option than where to write.
fn assert_goes_through(folder: &Path) {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let out = folder.with_file_name(format!("{name}-w4a8"));
    assert_succeeds(&["quantize", text(folder), "--out", text(&out)]);
    for folder in [folder, &out] {
        for verb in ["inspect", "cost"] {
            assert_succeeds(&[verb, text(folder)]);
        }
        assert_succeeds(&["generate", text(folder), "The old captain"]);
    }
    assert_succeeds(&["eval", text(&out)]);
}

#[test]
fn saved_tokenizers_give_the_tokens_of_transformers() {
    let mut num_tokenizers = 0;
    for entry in fs::read_dir(saved().join("tokenizers")).unwrap() {
        let folder = entry.unwrap().path();
        assert_tokens(&folder, &read(&folder.join("ids.json")), 448);
        num_tokenizers += 1;
    }
    assert!(num_tokenizers >= TOKENIZERS, "only {num_tokenizers} tokenizers");
}

#[test]
fn a_saved_folder_of_every_family_goes_through_every_verb_without_an_option() {
    let base = program::scratch("folders", "saved");
    let rows = families();
    assert!(rows.len() >= FAMILIES, "only {} families", rows.len());
    for row in rows {
        let folder = base.join(row["family"].as_str().unwrap());
        write(&row, &folder);
        assert_goes_through(&folder);
    }
}

/// Names a Python that has torch and transformers.
const PYTHON: &str = "DUALGRAIN_TRANSFORMERS";

#[test]
fn folders_that_transformers_saves_now_go_through_every_verb_without_an_option() {
    let Some(python) = std::env::var_os(PYTHON).filter(|python| !python.is_empty()) else {
        skipped(
            "transformers",
            format_args!("{PYTHON} names no Python that has torch and transformers"),
        );
        return;
    };
    let base = program::scratch("folders", "saved-now");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/make_folders.py");
    let output = Command::new(python).arg(script).arg(&base).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let rows = families();
    for row in &rows {
        let folder = base.join("models").join(row["family"].as_str().unwrap());
        let tokenizer = base.join("tokenizers").join(row["tokenizer"].as_str().unwrap());
        let config = read(&folder.join("config.json"));
        let vocab_size = config["vocab_size"].as_u64().unwrap() as usize;
        assert_tokens(&folder, &read(&tokenizer.join("ids.json")), vocab_size);
        assert_goes_through(&folder);
    }
    let num_written = fs::read_dir(base.join("models")).unwrap().count();
    assert_eq!(
        num_written,
        2 * rows.len(),
        "a family's folder, and what is quantized of it"
    );
}
