//! What stands in files: byte order marks, other things in their place, tokens that several files name.

use std::fs;

use serde_json::{Value, json};

use crate::program::{dualgrain, failure, stderr, text};
use crate::{answer, assert_taken, folder, original, patch, usual_answer};

#[test]
fn marks_pointers_and_pages_are_told_apart() {
    let marked = folder("marked", |folder| {
        for file in [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "generation_config.json",
        ] {
            let path = folder.join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(path, [b"\xef\xbb\xbf", &bytes[..]].concat()).unwrap();
        }
    });
    let said = assert_taken(&marked);
    assert_eq!(said.matches("byte order mark").count(), 4, "{said}");
    let out = marked.with_file_name("quantized");
    let small = ["--search", "rtn", "--windows", "1", "--context", "64"];
    let quantized = dualgrain(&[&["quantize", text(&marked), "--out", text(&out)][..], &small].concat());
    assert_eq!(quantized.status.code(), Some(0), "{}", stderr(&quantized));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 543942\n";
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        for (content, word) in [(pointer, "Git LFS"), ("<!DOCTYPE html><html>", "web page")] {
            let model = folder("in_place", |folder| {
                fs::write(folder.join(file), content).unwrap()
            });
            let message = failure(&["generate", text(&model), "x"]);
            assert!(message.contains(word) && message.contains(file), "{message}");
        }
    }
}

#[test]
fn end_tokens_and_stop_strings_come_from_all_files() {
    let second = usual_answer()[1].as_u64().unwrap();
    let tokenizer: Value =
        serde_json::from_slice(&fs::read(original().join("tokenizer.json")).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    let (word, _) = vocabulary
        .iter()
        .find(|(_, id)| id.as_u64() == Some(second))
        .unwrap();
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let model = folder(&format!("eos_{file}"), |folder| {
            if file == "special_tokens_map.json" {
                patch(folder, "tokenizer_config.json", json!({"eos_token": null}));
                fs::write(folder.join(file), "{}").unwrap();
            }
            patch(folder, file, json!({"eos_token": {"content": word}}));
        });
        let (tokens, _) = answer(&model, &[]);
        assert_eq!(tokens.as_array().unwrap().len(), 1, "{file}");
    }
}

#[test]
fn what_is_no_model_folder_is_told_with_where_the_model_is() {
    let base = crate::program::scratch("folders", "hints");
    fs::create_dir_all(base.join("hub/models--org--name/snapshots/0123")).unwrap();
    fs::write(base.join("model.gguf"), "GGUF").unwrap();
    for (name, word) in [
        ("hub/models--org--name", "snapshots/0123"),
        ("hub", "snapshots/0123"),
        ("model.gguf", "GGUF"),
        ("", "GGUF"),
    ] {
        let message = failure(&["generate", text(&base.join(name)), "x"]);
        assert!(message.contains(word), "{name}: {message}");
    }
    assert!(failure(&["inspect", "some-org/some-name"]).contains("dualgrain pull some-org/some-name"));
}

#[test]
fn a_token_without_an_embedding_is_refused_when_it_occurs() {
    let model = folder("larger_tokenizer", |folder| {
        let path = folder.join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        let mut token = added[0].clone();
        token["id"] = json!(8192);
        token["content"] = json!("<|extra|>");
        added.push(token);
        fs::write(path, tokenizer.to_string()).unwrap();
    });
    assert_taken(&model);
    let message = failure(&["generate", text(&model), "a <|extra|> b"]);
    assert!(
        message.contains("<|extra|>")
            && message.contains("id is 8192")
            && message.contains("largest id 8191"),
        "{message}"
    );
}
