//! The command as a user meets it: exit codes, one JSON object on stdout, errors that name file and tensor, and
//! nothing half-written.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use dualgrain_testing::copy_folder;
use program::{dualgrain, failure, json, stderr, stdout, text};
use serde_json::Value;

fn original() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny")
}

/// An empty folder of a test's own.
fn scratch(name: &str) -> PathBuf {
    program::scratch("command", name)
}

/// llama-tiny quantized once for all tests of this file, by the quicker method.
fn quantized() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = scratch("quantized").join("model");
        let out = dualgrain(&[
            "quantize",
            text(&original()),
            "--out",
            text(&folder),
            "--windows",
            "4",
            "--method",
            "dgq",
            "--json",
        ]);
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        folder
    })
}

/// A copy of llama-tiny that a test may damage.
fn damaged(name: &str, damage: impl FnOnce(&Path)) -> PathBuf {
    let folder = scratch(name).join("model");
    copy_folder(&original(), &folder);
    damage(&folder);
    folder
}

fn rewrite(path: &Path, change: impl FnOnce(String) -> String) {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["fly"][..],
        &["quantize"],
        &["eval"],
        &["quantize", "x", "--out", "y", "--group-size", "7"],
    ] {
        assert_eq!(dualgrain(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn every_verb_shows_an_example_in_its_help() {
    for verb in [
        "quickstart",
        "quantize",
        "export",
        "eval",
        "generate",
        "chat",
        "serve",
        "inspect",
        "bench",
        "fit",
        "predict",
        "select",
        "cost",
        "report",
        "doctor",
        "completions",
        "manual",
    ] {
        let output = dualgrain(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(
            stdout(&output).contains(&format!("Example:\n  dualgrain {verb}")),
            "{verb}"
        );
    }
}

#[test]
fn completions_mention_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&dualgrain(&["completions", shell]));
        assert!(
            script.contains("quantize") && script.contains("quickstart"),
            "{shell}"
        );
    }
}

#[test]
fn doctor_names_the_kernels_it_would_use() {
    let report = json(&["doctor", "--json"]);
    let chosen = report["chosen"].as_str().unwrap();
    assert!(
        report["instruction_sets"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name == chosen)
    );
}

#[test]
fn doctor_says_in_words_why_there_is_no_gpu() {
    let output = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(["doctor", "--json"])
        .env("DUALGRAIN_CUDA_DRIVER", "/nowhere/libcuda.so.1")
        .env("DUALGRAIN_NVRTC", "/nowhere/libnvrtc.so")
        .output()
        .expect("starting dualgrain");
    assert_eq!(output.status.code(), Some(0), "a missing driver is no failure");
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    if cfg!(feature = "cuda") {
        let words = "no NVIDIA driver here: tried /nowhere/libcuda.so.1; everything runs on the CPU";
        assert_eq!(report["gpu"], words);
        assert_eq!(report["cuda"]["usable"], false);
        let compiler = report["cuda"]["compiler"]["problem"].as_str().unwrap();
        assert!(compiler.contains("/nowhere/libnvrtc.so"), "{compiler}");
    }
}

#[test]
fn bench_gemm_stops_in_words_without_a_driver() {
    for shape in ["7B.o", "300x400"] {
        let output = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
            .args(["bench", "gemm", "--shapes", shape, "--m", "1,16"])
            .env("DUALGRAIN_CUDA_DRIVER", "/nowhere/libcuda.so.1")
            .output()
            .expect("starting dualgrain");
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        if cfg!(feature = "cuda") {
            assert!(message.contains("no NVIDIA driver here"), "{message}");
        }
        assert!(!message.contains("panicked"), "{message}");
    }
    // Without the word a folder is still asked for.
    assert_eq!(dualgrain(&["bench"]).status.code(), Some(2));
}

#[test]
fn bench_gemm_finds_wrong_words_and_files_before_it_looks_for_a_card() {
    for wrong in [
        ["--shapes", "nonsense"],
        ["--shapes", "7B.o,0x5"],
        ["--m", "0"],
        ["--m", "1,many"],
        ["--group-size", "17"],
    ] {
        let output = dualgrain(&["bench", "gemm", wrong[0], wrong[1]]);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", stderr(&output));
    }
    let peers = [
        "bench",
        "gemm",
        "--against",
        "cublas-bf16",
        "--peers",
        "/nowhere/peers.csv",
    ];
    for arguments in [&peers[..], &["bench", "gemm", "--csv", "/nowhere/rows.csv"]] {
        let output = dualgrain(arguments);
        assert_eq!(output.status.code(), Some(1));
        if cfg!(feature = "cuda") {
            assert!(stderr(&output).contains("/nowhere/"), "{}", stderr(&output));
        }
    }
}

#[test]
fn eval_gives_the_promised_figures_and_the_same_for_any_thread_count() {
    let run = |threads| {
        let (model, reference) = (text(quantized()).to_owned(), text(&original()).to_owned());
        json(&[
            "eval",
            &model,
            "--reference",
            &reference,
            "--windows",
            "2",
            "--json",
            "--threads",
            threads,
        ])
    };
    let (one, two) = (run("1"), run("2"));
    for field in [
        "perplexity",
        "perplexity_reference",
        "kl_divergence",
        "top1_agreement",
        "bits_per_weight",
    ] {
        assert!(one[field].as_f64().unwrap() > 0.0, "{field}");
        assert_eq!(one[field], two[field], "{field}");
    }
    assert_eq!(one["tokens"], 2 * 1023);
    for field in ["kl_percentiles", "kl_by_position", "worst_tokens"] {
        assert_eq!(one[field], two[field], "{field}");
    }
    assert!(one["kl_percentiles"]["p99"].as_f64() > one["kl_percentiles"]["median"].as_f64());
    assert_eq!(one["kl_by_position"].as_array().unwrap().len(), 11);
    let worst = &one["worst_tokens"][0];
    assert!(!worst["before"].as_str().unwrap().is_empty() && worst["model"]["token"].is_string());
    let bits = one["bits_per_weight"].as_f64().unwrap();
    assert!((4.0..4.6).contains(&bits), "{bits} bits a weight");
    let worse = one["perplexity"].as_f64().unwrap() / one["perplexity_reference"].as_f64().unwrap();
    assert!(
        (1.0..1.15).contains(&worse),
        "perplexity grew by a factor of {worse}"
    );
}

#[test]
fn eval_says_where_a_divergence_comes_from() {
    let (model, reference) = (text(quantized()).to_owned(), text(&original()).to_owned());
    let compared = [
        "eval",
        &model,
        "--reference",
        &reference,
        "--windows",
        "2",
        "--causes",
        "--json",
    ];
    let report = json(&compared);
    let causes = report["causes"].as_array().unwrap();
    let divergence = |part: &str| {
        let found = causes
            .iter()
            .find(|cause| cause["part"].as_str().unwrap().contains(part));
        found.unwrap()["kl_divergence"].as_f64().unwrap()
    };
    // The whole is what was measured before, and every part in integers changes something.
    assert_eq!(
        report["kl_divergence"].as_f64().unwrap(),
        divergence("all of them")
    );
    let weights = divergence("rounded weights");
    for part in ["INT8 inputs of the blocks", "output layer", "KV cache"] {
        assert!(divergence(part) > 0.0 && divergence(part) != weights, "{part}");
    }
    assert!(weights > 0.5 * divergence("all of them"));
    let output = dualgrain(&["eval", &model, "--causes"]);
    assert!(stderr(&output).contains("--reference"), "{}", stderr(&output));
    // An original has nothing in integers, and tasks alone have no divergence.
    let output = dualgrain(&["eval", &reference, "--reference", &reference, "--causes"]);
    assert!(
        stderr(&output).contains("nothing in integers"),
        "{}",
        stderr(&output)
    );
    let output = dualgrain(&[
        "eval",
        &model,
        "--reference",
        &reference,
        "--causes",
        "--tasks",
        "x.jsonl",
    ]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_budget_of_bits_is_spent_and_said() {
    let out = scratch("budget");
    let (original, folder) = (text(&original()).to_owned(), text(&out).to_owned());
    let arguments = [
        "quantize",
        &original,
        "--out",
        &folder,
        "--bits",
        "4.4",
        "--method",
        "dgq",
        "--windows",
        "4",
        "--context",
        "64",
    ];
    let report = json(&[&arguments[..], &["--json"]].concat());
    assert!(report["bits_per_weight"].as_f64().unwrap() <= 4.4);
    assert_eq!(report["choice"]["linears"].as_array().unwrap().len(), 24);
    let page = fs::read_to_string(out.join("quantization_report.html")).unwrap();
    assert!(page.contains("How the budget was spent") && page.contains("bits a weight: "));
    let output = dualgrain(&[
        "quantize",
        &original,
        "--out",
        &folder,
        "--bits",
        "4.4",
        "--group-size",
        "64",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let output = dualgrain(&[
        "quantize",
        &original,
        "--out",
        "elsewhere",
        "--plan",
        "--bits",
        "4.1",
    ]);
    assert!(stderr(&output).contains("at least 4.1"), "{}", stderr(&output));
}

#[test]
fn generate_repeats_itself_for_the_same_seed_only() {
    let folder = text(quantized()).to_owned();
    let run = |seed| {
        let arguments = [
            "generate",
            &folder,
            "The sea was",
            "--temperature",
            "1.2",
            "--seed",
            seed,
            "--max-tokens",
            "24",
        ];
        let output = dualgrain(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn inspect_shows_schemes_of_original_and_quantized_folders() {
    let folder = text(quantized()).to_owned();
    assert!(
        json(&["inspect", &folder, "--json"])["bits_per_weight"]
            .as_f64()
            .unwrap()
            < 4.6
    );
    assert_eq!(
        json(&["inspect", text(&original()), "--json"])["bits_per_weight"],
        16.0
    );
}

#[test]
fn plan_states_costs_and_writes_nothing() {
    let out = scratch("plan").join("never-written");
    let plan = json(&[
        "quantize",
        text(&original()),
        "--out",
        text(&out),
        "--plan",
        "--json",
    ]);
    assert!(plan["peak_memory_bytes"].as_u64().unwrap() > 0);
    assert!(!out.exists());
}

#[test]
fn an_existing_output_is_kept() {
    let folder = quantized();
    let before = fs::read(folder.join("model.safetensors")).unwrap();
    let message = failure(&[
        "quantize",
        text(&original()),
        "--out",
        text(folder),
        "--windows",
        "1",
    ]);
    assert!(message.contains("--replace"), "{message}");
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), before);
}

#[test]
fn a_truncated_checkpoint_is_named_and_nothing_is_written() {
    let model = damaged("truncated", |folder| {
        let file = folder.join("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    });
    let out = model.with_extension("out");
    let message = failure(&["quantize", text(&model), "--out", text(&out)]);
    assert!(message.contains("model.safetensors"), "{message}");
    assert!(!out.exists());
}

#[test]
fn a_nan_weight_is_named_with_its_tensor() {
    let model = damaged("nan", |folder| {
        let file = folder.join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(&0x7fc0u16.to_le_bytes());
        fs::write(&file, bytes).unwrap();
    });
    let out = model.with_extension("out");
    let message = failure(&["quantize", text(&model), "--out", text(&out), "--windows", "1"]);
    assert!(message.contains("NaN") && message.contains("model."), "{message}");
    assert!(!out.exists() && !out.with_extension("out.journal").exists());
}

/// A header may ask for more memory than any machine has; the file is sparse, so that it costs no disk.
#[test]
fn a_model_larger_than_memory_is_refused_in_words() {
    let rows: u64 = 1 << 32;
    let model = damaged("huge", |folder| {
        let header = format!(
            r#"{{"model.embed_tokens.weight":{{"dtype":"BF16","shape":[{rows},256],"data_offsets":[0,{}]}}}}"#,
            512 * rows
        );
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        let path = folder.join("model.safetensors");
        fs::write(&path, &file).unwrap();
        let sparse = fs::OpenOptions::new().write(true).open(&path).unwrap();
        sparse.set_len(file.len() as u64 + 512 * rows).unwrap();
    });
    let name = text(&model);
    for arguments in [&["generate", name, "x"][..], &["bench", name], &["eval", name]] {
        let message = failure(arguments);
        assert!(
            message.contains("memory") && message.contains("huge"),
            "{message}"
        );
    }
}

#[test]
fn what_does_not_fit_the_share_of_memory_is_refused_with_what_would() {
    let folder = original();
    for verb in ["generate", "eval", "bench"] {
        let mut arguments = vec![verb, text(&folder), "--memory", "0.0000001"];
        if verb == "generate" {
            arguments.insert(2, "Once");
        }
        let error = failure(&arguments);
        assert!(error.contains("not even the model fits"), "{verb}: {error}");
        assert!(
            error.contains("weights") && error.contains("cache"),
            "{verb}: {error}"
        );
    }
    for share in ["0", "1.5", "all", "nan"] {
        let out = dualgrain(&["generate", text(&folder), "Once", "--memory", share]);
        assert_eq!(out.status.code(), Some(2), "{share}");
        assert!(stderr(&out).contains("0.9"), "{share}: {}", stderr(&out));
    }
}

#[test]
fn an_unknown_architecture_lists_the_known_ones() {
    let model = damaged("architecture", |folder| {
        rewrite(&folder.join("config.json"), |json| {
            json.replace("Llama", "Gizmo").replace("llama", "gizmo")
        });
    });
    let message = failure(&["generate", text(&model), "x"]);
    assert!(message.contains("izmo") && message.contains("Llama"), "{message}");
}

#[test]
fn a_tokenizer_may_be_larger_than_the_vocabulary_as_long_as_no_text_has_its_tokens() {
    let model = damaged("vocabulary", |folder| {
        rewrite(&folder.join("tokenizer.json"), |json| {
            json.replacen("\"vocab\": {", "\"vocab\": { \"zzzz\": 9000,", 1)
        });
    });
    let out = dualgrain(&["generate", text(&model), "x", "--max-tokens", "1"]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
}

#[test]
fn empty_calibration_and_too_long_prompts_are_refused() {
    let empty = scratch("empty").join("empty.txt");
    fs::write(&empty, "").unwrap();
    let out = empty.with_extension("out");
    let message = failure(&[
        "quantize",
        text(&original()),
        "--out",
        text(&out),
        "--calib",
        text(&empty),
    ]);
    assert!(message.contains("empty.txt"), "{message}");
    let prompt = "word ".repeat(5000);
    let message = failure(&["generate", text(&original()), &prompt]);
    assert!(message.contains("2048"), "{message}");
}

#[test]
fn calibration_takes_several_files_and_documents_a_line() {
    let folder = scratch("calibration");
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        text(&path).to_owned()
    };
    let plain = write("plain.txt", &"The sea was calm that night. ".repeat(30));
    let lines = write(
        "lines.jsonl",
        &"{\"text\": \"A line of prose for a window.\"}\n".repeat(40),
    );
    let wrong = write("wrong.jsonl", "{\"text\": \"fine\"}\n{\"words\": 3}\n");
    let (model, out) = (original(), folder.join("out"));
    let quantize = |files: &[&str]| {
        let mut arguments = vec!["quantize", text(&model), "--out", text(&out), "--method", "rtn"];
        arguments.extend(["--context", "32", "--json", "--replace"]);
        arguments.extend(files.iter().flat_map(|file| ["--calib", file]));
        dualgrain(&arguments)
    };
    let tokens = |files: &[&str]| {
        let out = quantize(files);
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert!(report["notice"].as_str().unwrap().contains("a longer text"));
        report["calibration_tokens"].as_u64().unwrap()
    };
    let (one, both) = (tokens(&[&plain]), tokens(&[&plain, &lines]));
    assert!(one > 0 && both > one, "{one} tokens of one file, {both} of two");
    let refused = quantize(&[&plain, &wrong]);
    let message = stderr(&refused);
    assert!(
        message.contains("wrong.jsonl:2") && message.contains("`text`"),
        "{message}"
    );
}

#[test]
fn a_missing_folder_is_named() {
    for verb in ["eval", "inspect", "bench", "chat"] {
        let message = failure(&[verb, "no-such-folder"]);
        assert!(message.contains("no-such-folder"), "{verb}: {message}");
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_that_says_so() {
    // /dev/full fails every write with "no space left"; a journal or output cannot be a device, so the JSON result is.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(["doctor", "--json"])
        .stdout(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

/// The method and the kernels are deterministic, so this catches a change that costs quality, however small.
#[test]
fn the_bundled_model_keeps_its_quality() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("quickstart");
    let report = json(&["quickstart", "--json", "--out", folder.to_str().unwrap()]);
    let figure = |name: &str| report[name].as_f64().unwrap();
    assert!(
        figure("perplexity_change") < 0.0285,
        "measured 0.0280, now {}",
        figure("perplexity_change")
    );
    assert!(
        figure("kl_divergence") < 0.0428,
        "measured 0.0423, now {}",
        figure("kl_divergence")
    );
    assert!(
        figure("bits_per_weight") < 4.2,
        "{} bits a weight",
        figure("bits_per_weight")
    );
}

#[test]
fn replacing_never_takes_a_users_file_with_it() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("q");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/llama-tiny");
    let quantize = |more: &[&str]| {
        let common = [
            "quantize",
            model,
            "--out",
            folder.to_str().unwrap(),
            "--windows",
            "1",
            "--context",
            "64",
            "--search",
            "rtn",
        ];
        dualgrain(&[&common[..], more].concat())
    };
    assert_eq!(quantize(&[]).status.code(), Some(0));
    assert_eq!(quantize(&["--replace"]).status.code(), Some(0));
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    let refused = quantize(&["--replace"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("notes.txt"));
    assert_eq!(std::fs::read(folder.join("notes.txt")).unwrap(), b"mine");
}
