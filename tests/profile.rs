//! `profile` on the CPU as a user meets it: rows survive kill -9, resuming doubles none, shards share none, merging checks what it
//! merges, and what cannot be measured is said in words.
#![cfg(unix)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Small products, some thousand rows of them: more than a test will wait for.
const SPACE: &str = r#"{"model_weights": [], "num_exhaustive": 0, "num_sampled": 400, "m": [1, 8], "n": [64, 300],
    "k": [64, 300], "tile_shapes": [], "large_tile_shapes": []}"#;

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("space.json"), SPACE).unwrap();
    folder
}

fn profile(folder: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
    command
        .args([
            "profile",
            "--device",
            "cpu",
            "--threads",
            "1",
            "--json",
            "--space",
        ])
        .arg(folder.join("space.json"))
        .arg("--out")
        .arg(folder.join(out))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a run says on stdout, after it succeeded.
fn summary(mut command: Command) -> serde_json::Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whole lines of a folder's rows, without the header.
fn rows(folder: &Path, out: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join(out).join("rows.csv")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().skip(1).map(str::to_owned).collect()
}

/// What was measured, as far as a line says: kernel, config, m, n, k, group size and, further on, threads.
fn configurations(rows: &[String]) -> HashSet<String> {
    let of = |row: &String| {
        let fields: Vec<&str> = row.split(',').collect();
        format!("{} {}", fields[..6].join(","), fields[14])
    };
    rows.iter().map(of).collect()
}

/// Starts a run and sends `signal` when it has written some rows.
fn interrupt(folder: &Path, signal: &str, more: &[&str]) -> Output {
    let child = profile(folder, "out", more).spawn().unwrap();
    let (started, before) = (Instant::now(), rows(folder, "out").len());
    while rows(folder, "out").len() < before + 5 {
        assert!(started.elapsed() < Duration::from_secs(120), "no rows");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    child.wait_with_output().unwrap()
}

#[test]
fn killed_sweep_keeps_every_row_and_goes_on_without_doubling_one() {
    let folder = scratch("killed");
    assert!(!interrupt(&folder, "-KILL", &[]).status.success());
    let first = rows(&folder, "out");
    assert!(!interrupt(&folder, "-KILL", &["--resume"]).status.success());
    let second = rows(&folder, "out");
    assert!(second.len() > first.len());
    assert_eq!(second[..first.len()], first[..], "rows that were there are gone");
    let done = summary(profile(&folder, "out", &["--resume", "--budget", "1s"]));
    let all = rows(&folder, "out");
    assert_eq!(done["rows"], all.len());
    assert_eq!(configurations(&all).len(), all.len(), "a row is there twice");
    assert_eq!(done["wrong_rows"], 0);
    // Every row was checked, and has a time or says why not.
    for row in &all {
        let fields: Vec<&str> = row.split(',').collect();
        assert!(matches!(fields[24], "naive" | "freivalds"), "{row}");
        assert!(!fields[26].is_empty(), "{row}");
    }
}

#[test]
fn interrupt_ends_between_two_rows_and_says_where() {
    let folder = scratch("interrupted");
    let output = interrupt(&folder, "-INT", &[]);
    assert_eq!(output.status.code(), Some(130), "{}", errors(&output));
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["finished"], false);
    assert_eq!(done["rows"], rows(&folder, "out").len());
}

#[test]
fn shards_share_nothing_and_merge_to_one_set() {
    let folder = scratch("shards");
    for (out, shard) in [("a", "0/2"), ("b", "1/2")] {
        summary(profile(&folder, out, &["--shard", shard, "--budget", "2s"]));
    }
    let (a, b) = (rows(&folder, "a"), rows(&folder, "b"));
    assert!(configurations(&a).is_disjoint(&configurations(&b)));
    let merge = |out: &str, second: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
        command
            .args(["profile", "merge", "--json"])
            .args([folder.join("a"), folder.join(second)])
            .arg("--out")
            .arg(folder.join(out));
        command.output().unwrap()
    };
    let merged = merge("all", "b");
    assert!(merged.status.success(), "{}", errors(&merged));
    assert_eq!(rows(&folder, "all").len(), a.len() + b.len());
    // The same from another machine is refused.
    let manifest = folder.join("b/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let other: serde_json::Value = serde_json::from_str(&text).unwrap();
    let name = other["machine"]["name"].as_str().unwrap().to_owned();
    fs::write(&manifest, text.replace(&name, "Another Processor")).unwrap();
    let refused = merge("mixed", "b");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("cannot be merged: devices"),
        "{}",
        errors(&refused)
    );
    // So is a row that is none.
    fs::write(&manifest, text).unwrap();
    let path = folder.join("b/rows.csv");
    let broken = fs::read_to_string(&path).unwrap().replacen(",NT,", ",NX,", 1);
    fs::write(&path, broken).unwrap();
    let refused = merge("broken", "b");
    assert!(errors(&refused).contains("line 2"), "{}", errors(&refused));
}

/// Writes a folder's rows and manifest changed into another folder.
fn copy(folder: &Path, from: &str, to: &str, row: impl Fn(usize, &str) -> Option<String>, protocol: u32) {
    let text = fs::read_to_string(folder.join(from).join("rows.csv")).unwrap();
    let lines = text.lines().enumerate();
    let kept = lines.filter_map(|(place, line)| match place {
        0 => Some(line.to_owned()),
        _ => row(place, line),
    });
    fs::create_dir_all(folder.join(to)).unwrap();
    fs::write(
        folder.join(to).join("rows.csv"),
        kept.collect::<Vec<_>>().join("\n") + "\n",
    )
    .unwrap();
    let manifest = fs::read_to_string(folder.join(from).join("manifest.json")).unwrap();
    let now = format!("\"protocol\": {}", dualgrain_perf::PROTOCOL);
    assert!(manifest.contains(&now));
    let changed = manifest.replace(&now, &format!("\"protocol\": {protocol}"));
    fs::write(folder.join(to).join("manifest.json"), changed).unwrap();
}

#[test]
fn merging_takes_the_row_that_tells_most_and_leaves_out_what_is_named() {
    let folder = scratch("better");
    summary(profile(&folder, "all", &["--budget", "1s"]));
    let all = rows(&folder, "all");
    assert!(all.len() > 3);
    let with_energy = |line: &str, window: &str| {
        let mut fields: Vec<&str> = line.split(',').collect();
        let energy_j = (50.0 * fields[26].parse::<f64>().unwrap()).to_string();
        (fields[25], fields[30], fields[31], fields[32]) = ("", "50.0", &energy_j, window);
        fields.join(",")
    };
    // Energy of a short region by the older protocol; of a longer one by the newer, for the second row alone.
    copy(
        &folder,
        "all",
        "old",
        |place, line| {
            Some(if place <= 3 {
                with_energy(line, "8.0")
            } else {
                line.to_owned()
            })
        },
        1,
    );
    copy(
        &folder,
        "all",
        "new",
        |place, line| (place == 2).then(|| with_energy(line, "40.0")),
        2,
    );
    let merge = |out: &str, from: [&str; 2], more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
        command
            .args(["profile", "merge", "--json"])
            .args(from.map(|name| folder.join(name)));
        command.arg("--out").arg(folder.join(out)).args(more);
        summary(command)
    };
    for (out, from) in [("forth", ["old", "new"]), ("back", ["new", "old"])] {
        let merged = merge(out, from, &[]);
        assert_eq!(
            (&merged["rows"], &merged["repeated"]),
            (&all.len().into(), &1.into())
        );
        let mut windows: Vec<String> = rows(&folder, out)
            .iter()
            .map(|row| row.split(',').nth(32).unwrap().to_owned())
            .collect();
        windows.retain(|window| window.parse::<f64>().is_ok_and(|window| window > 5.0));
        windows.sort();
        assert_eq!(windows, ["40.0", "8.0", "8.0"]);
        let manifest = fs::read_to_string(folder.join(out).join("manifest.json")).unwrap();
        assert!(
            manifest.contains("\"protocol\": 2") && manifest.contains("rows of protocol 1"),
            "{manifest}"
        );
    }
    // What a merge made can be merged again, and says it once.
    merge("again", ["forth", "new"], &[]);
    let manifest = fs::read_to_string(folder.join("again/manifest.json")).unwrap();
    assert_eq!(manifest.matches("rows of protocol 1").count(), 1);
    let kernel = all[0].split(',').next().unwrap();
    let merged = merge("without", ["old", "new"], &["--without", kernel]);
    assert!(merged["left_out"].as_u64().unwrap() > 0);
    assert!(
        rows(&folder, "without")
            .iter()
            .all(|row| !row.starts_with(kernel))
    );
}

#[test]
fn what_another_folder_knows_is_not_measured_again() {
    let folder = scratch("known");
    summary(profile(&folder, "first", &["--budget", "1s"]));
    let known = folder.join("first");
    let done = summary(profile(
        &folder,
        "second",
        &["--budget", "1s", "--known", known.to_str().unwrap()],
    ));
    let (first, second) = (rows(&folder, "first"), rows(&folder, "second"));
    assert!(!second.is_empty());
    assert_eq!(done["rows"], second.len());
    assert!(configurations(&first).is_disjoint(&configurations(&second)));
    // A folder of the older protocol is known too, but not gone on with.
    copy(&folder, "first", "older", |_, line| Some(line.to_owned()), 1);
    let output = profile(&folder, "older", &["--resume"]).output().unwrap();
    assert!(errors(&output).contains("--known"), "{}", errors(&output));
    let older = folder.join("older");
    summary(profile(
        &folder,
        "third",
        &["--budget", "0.2s", "--known", older.to_str().unwrap()],
    ));
    assert!(configurations(&first).is_disjoint(&configurations(&rows(&folder, "third"))));
}

#[test]
fn what_cannot_be_measured_is_refused_in_words() {
    let folder = scratch("refused");
    let refused = |more: &[&str]| {
        let output = profile(&folder, "out", more).output().unwrap();
        assert!(!output.status.success());
        errors(&output)
    };
    fs::write(folder.join("space.json"), r#"{"k": [0, 64]}"#).unwrap();
    assert!(refused(&[]).contains("k from 0 to 64"));
    fs::write(folder.join("space.json"), r#"{"m": [1, 2000000]}"#).unwrap();
    assert!(refused(&[]).contains("expected a range"));
    fs::write(folder.join("space.json"), r#"{"tokens": 5}"#).unwrap();
    assert!(refused(&[]).contains("unknown field"));
    fs::write(folder.join("space.json"), SPACE).unwrap();
    assert!(refused(&["--shard", "2/2"]).contains("--shard"));
    let words = refused(&["--kernels", "gemm_w4b8"]);
    assert!(words.contains("did you mean gemm_w4a8_"), "{words}");
    assert!(!folder.join("out").exists());
    summary(profile(&folder, "out", &["--budget", "0.2s"]));
    assert!(refused(&[]).contains("--resume"));
}

#[test]
fn committed_set_is_not_overwritten_by_a_sweep_or_a_merge() {
    let folder = scratch("committed");
    summary(profile(&folder, "first", &["--budget", "0.2s"]));
    let set = folder.join("set");
    fs::create_dir(&set).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/data/h200");
    for name in ["rows.csv.gz", "manifest.json"] {
        fs::copy(shipped.join(name), set.join(name)).unwrap();
    }
    let is_as_shipped = || {
        let same = |name| fs::read(shipped.join(name)).unwrap() == fs::read(set.join(name)).unwrap();
        same("rows.csv.gz") && same("manifest.json") && !set.join("rows.csv").exists()
    };
    for (more, words) in [(&[][..], "--resume"), (&["--resume"], "NVIDIA H200")] {
        let output = profile(&folder, "set", more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains(words), "{}", errors(&output));
        assert!(is_as_shipped());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(["profile", "merge"])
        .arg(folder.join("first"))
        .arg("--out")
        .arg(&set)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(is_as_shipped());
}

/// One small product, by one kernel.
const ONE: &str = r#"{"model_weights": [[96, 80]], "model_tokens": [3, 5], "num_exhaustive": 0, "num_sampled": 0,
    "tile_shapes": [], "large_tile_shapes": []}"#;

#[test]
fn rows_that_were_unsteady_are_tried_again_on_resuming() {
    let folder = scratch("unsteady");
    fs::write(folder.join("space.json"), ONE).unwrap();
    let first = summary(profile(&folder, "out", &[]));
    assert_eq!(first["finished"], true);
    let path = folder.join("out/rows.csv");
    let text = fs::read_to_string(&path).unwrap();
    let marked = text.replace(",naive,,", ",naive,unsteady,");
    assert_ne!(marked, text);
    fs::write(&path, &marked).unwrap();
    let second = summary(profile(&folder, "out", &["--resume"]));
    assert_eq!(second["rows"], first["rows"]);
    assert_eq!(second["skipped_rows"], first["rows"]);
    assert!(
        second["new_rows"].as_u64().unwrap() > 0,
        "none was steady: {second}"
    );
    // What was there stays.
    assert!(fs::read_to_string(&path).unwrap().starts_with(&marked));
}

#[test]
fn sweep_is_finished_when_and_only_when_nothing_is_left() {
    let folder = scratch("finished");
    fs::write(folder.join("space.json"), ONE).unwrap();
    let run = |out: &str, budget: &str| {
        let done = summary(profile(
            &folder,
            out,
            &["--kernels", "gemm_bf16", "--budget", budget],
        ));
        (
            done["rows"].as_u64().unwrap(),
            done["finished"].as_bool().unwrap(),
        )
    };
    let (all, finished) = run("all", "600s");
    assert!(all > 2 && finished);
    for (place, budget) in ["0.0001s", "0.05s"].iter().enumerate() {
        let (rows, finished) = run(&format!("out{place}"), budget);
        assert_eq!(finished, rows == all, "{rows} of {all} rows in {budget}");
    }
}

#[test]
fn machine_without_a_driver_gets_words_and_writes_nothing() {
    let folder = scratch("driver");
    let output = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(["profile", "--device", "cuda:0", "--out"])
        .arg(folder.join("out"))
        .env("DUALGRAIN_CUDA_DRIVER", folder.join("libmissing.so"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = errors(&output);
    assert!(
        words.contains("no NVIDIA driver here") || words.contains("without GPUs"),
        "{words}"
    );
    assert!(!folder.join("out").exists());
}

#[test]
fn product_beyond_memory_is_a_marked_row_and_no_time() {
    let folder = scratch("memory");
    // Too many weights; few weights, but outputs of 68 GB.
    for weights in ["[131071, 131071]", "[131071, 16]"] {
        let space = format!(
            r#"{{"model_weights": [{weights}], "model_tokens": [131071], "num_exhaustive": 0, "num_sampled": 0,
            "tile_shapes": [], "large_tile_shapes": []}}"#
        );
        fs::write(folder.join("space.json"), space).unwrap();
        summary(profile(&folder, "out", &["--kernels", "gemm_w8a8", "--resume"]));
    }
    let all = rows(&folder, "out");
    assert!(!all.is_empty());
    for row in all {
        let fields: Vec<&str> = row.split(',').collect();
        assert_eq!((fields[25], fields[26]), ("not-run", ""), "{row}");
    }
}

#[test]
fn a_check_of_the_counter_writes_over_neither_file_of_others() {
    let folder = scratch("counter");
    for name in ["counter.csv", "counter.samples.csv"] {
        let file = folder.join(name);
        fs::write(&file, "my letter").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
            .args(["profile", "--device", "cuda:0", "--out"])
            .arg(folder.join("out"))
            .arg("--check-energy")
            .arg(folder.join("counter.csv"))
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains(name) && message.contains("--replace"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "my letter");
        fs::remove_file(&file).unwrap();
    }
}
