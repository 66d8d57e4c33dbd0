//! Options that a folder decides with, prompts, conversations, and where outputs go.

use std::fs;

use serde_json::{Value, json};

use crate::program::{dualgrain, failure, json, stderr, stdout, text};
use crate::{answer, folder, generate_from_stdin, original, patch, usual_answer};

#[test]
fn sampling_of_the_models_authors_is_said_and_can_be_left() {
    let model = folder("sampling", |folder| {
        patch(
            folder,
            "generation_config.json",
            json!({"do_sample": true, "temperature": 0.9, "top_k": 3}),
        );
    });
    let (sampled, said) = answer(&model, &["--seed", "5"]);
    assert!(
        said.contains("temperature 0.9, top-k 3") && said.contains("--ignore-defaults"),
        "{said}"
    );
    let given = [
        "--ignore-defaults",
        "--temperature",
        "0.9",
        "--top-k",
        "3",
        "--seed",
        "5",
    ];
    assert_eq!(answer(&model, &given).0, sampled);
    let (greedy, said) = answer(&model, &["--ignore-defaults"]);
    assert_eq!(greedy, usual_answer());
    assert!(!said.contains("generation_config"), "{said}");
    let (own, said) = answer(&model, &["--temperature", "0"]);
    assert_eq!(own, usual_answer());
    assert!(said.contains("says top-k 3 ("), "{said}");
}

#[test]
fn prompts_come_from_arguments_files_and_standard_input() {
    let model = original();
    let base = [
        "generate",
        text(&model),
        "--max-tokens",
        "4",
        "--json",
        "--threads",
        "1",
    ];
    let file = crate::program::scratch("folders", "prompt").join("prompt.txt");
    fs::write(&file, "\u{feff}The old captain").unwrap();
    let from_file = json(&[&base[..], &["--file", text(&file)]].concat());
    assert_eq!(from_file["prompt"], "The old captain");
    assert_eq!(from_file["tokens"], usual_answer());
    let piped = generate_from_stdin(&[&base[..], &["-"]].concat(), b"The old captain");
    let piped: Value = serde_json::from_str(&stdout(&piped)).unwrap();
    assert_eq!(piped["tokens"], usual_answer());
    for (input, word) in [(&b""[..], "nothing"), (b"na\xefve", "offset 2")] {
        let output = generate_from_stdin(&["generate", text(&model), "-"], input);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(word) && stderr(&output).contains("standard input"));
    }
    for wrong in [
        &["generate", text(&model)][..],
        &["generate", text(&model), "x", "--file", "y"],
    ] {
        assert_eq!(dualgrain(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn logprobs_penalties_and_context_are_options_of_generate() {
    let model = original();
    let base = [
        "generate",
        text(&model),
        "The old captain",
        "--max-tokens",
        "4",
        "--threads",
        "1",
    ];
    let told = json(&[&base[..], &["--json", "--logprobs", "2"]].concat());
    let logprobs = told["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 4);
    for (place, token) in logprobs.iter().zip(told["tokens"].as_array().unwrap()) {
        assert_eq!(place["token"], *token);
        // Greedy: the chosen token is the most likely one.
        assert_eq!(place["top"][0]["token"], *token);
        assert_eq!(place["top"][0]["logprob"], place["logprob"]);
        assert!(place["logprob"].as_f64().unwrap() <= 0.0 && place["text"].is_string());
    }
    assert!(failure(&[&base[..], &["--logprobs", "2"]].concat()).contains("--json"));
    let (plain, _) = answer(&model, &["--max-tokens", "40"]);
    let (penalized, _) = answer(
        &model,
        &[
            "--max-tokens",
            "40",
            "--frequency-penalty",
            "2",
            "--repetition-penalty",
            "1.3",
        ],
    );
    assert_ne!(plain, penalized);
    let (cut, _) = answer(&model, &["--max-tokens", "40", "--context", "6"]);
    assert!(cut.as_array().unwrap().len() < 6);
    let message = failure(&[&base[..], &["--context", "2"]].concat());
    assert!(message.contains("--context takes more"), "{message}");
    assert!(failure(&[&base[..], &["--context", "4096"]].concat()).contains("2048"));
    for (option, word) in [
        ("--seed", "from 0 on"),
        ("--top-k", "whole number"),
        ("--temperature", "from 0"),
    ] {
        let output = dualgrain(&[&base[..], &[option, "-3"]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
    let (all, _) = answer(&model, &["--top-k", "-1", "--seed", "-1"]);
    assert_eq!(all, usual_answer(), "a greedy choice draws nothing");
}

#[test]
fn a_script_sees_that_a_piped_chat_failed() {
    let template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}{{ messages[0].content }}";
    let model = folder("refusing", |folder| {
        patch(
            folder,
            "tokenizer_config.json",
            json!({"chat_template": template}),
        )
    });
    let chat = ["chat", text(&model), "--max-tokens", "2", "--threads", "1"];
    let refused = generate_from_stdin(&[&chat[..], &["--system", "S"]].concat(), b"a\nb\n");
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(
        said.contains("no system here") && said.contains("2 of 2 messages got no answer"),
        "{said}"
    );
    let answered = generate_from_stdin(&[&chat[..], &["--context", "64"]].concat(), b"a\n");
    assert_eq!(answered.status.code(), Some(0), "{}", stderr(&answered));
}

#[cfg(unix)]
#[test]
fn output_folders_may_be_links_and_what_can_not_be_is_known_beforehand() {
    let base = crate::program::scratch("folders", "places");
    fs::create_dir(base.join("big")).unwrap();
    std::os::unix::fs::symlink("big", base.join("out")).unwrap();
    std::os::unix::fs::symlink("nowhere", base.join("dangling")).unwrap();
    fs::write(base.join("file"), "").unwrap();
    let model = original();
    let small = ["--search", "rtn", "--windows", "1", "--context", "64"];
    let quantize = |out: &str, more: &[&str]| {
        let out = base.join(out);
        dualgrain(&[&["quantize", text(&model), "--out", text(&out)][..], &small, more].concat())
    };
    let done = quantize("out", &[]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(base.join("out").is_symlink() && base.join("big/config.json").is_file());
    for (out, word) in [
        ("dangling", "link"),
        ("file", "can not be a folder"),
        ("out", "already exists"),
    ] {
        for more in [&[][..], &["--plan"]] {
            let refused = quantize(out, more);
            assert_eq!(refused.status.code(), Some(1), "{out} {more:?}");
            assert!(stderr(&refused).contains(word), "{}", stderr(&refused));
        }
    }
}

#[test]
fn files_that_dualgrain_did_not_write_are_not_written_over() {
    let base = crate::program::scratch("folders", "letters");
    let letter = base.join("letter");
    let model = original();
    for arguments in [
        &["cost", text(&model), "--html", text(&letter)][..],
        &["report", "h200", "--out", text(&letter)],
        &[
            "bench",
            text(&model),
            "--prompt-tokens",
            "8",
            "--generate-tokens",
            "1",
            "--csv",
            text(&letter),
        ],
    ] {
        fs::write(&letter, "my letter").unwrap();
        let message = failure(arguments);
        assert!(
            message.contains("letter: there is a file") && message.contains("--replace"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(&letter).unwrap(), "my letter");
    }
    let cost = ["cost", text(&model), "--html", text(&letter)];
    let replaced = dualgrain(&[&cost[..], &["--replace"]].concat());
    assert_eq!(replaced.status.code(), Some(0), "{}", stderr(&replaced));
    assert_eq!(
        dualgrain(&cost).status.code(),
        Some(0),
        "its own page is written over"
    );
}
