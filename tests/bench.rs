//! `bench` as a user meets it: what its rows carry, what it refuses, what an interruption leaves.

mod program;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use program::{dualgrain, json, stderr, text};
use serde_json::Value;

fn model() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/models/llama-tiny").to_owned()
}

/// An empty folder of a test's own.
fn scratch(name: &str) -> PathBuf {
    program::scratch("bench", name)
}

#[test]
fn bench_rows_carry_the_promised_fields() {
    let folder = model();
    let csv = scratch("bench").join("rows.csv");
    let arguments = [
        "bench",
        &folder,
        "-p",
        "8",
        "-n",
        "2",
        "--batch",
        "1,2",
        "-r",
        "2",
        "--csv",
        text(&csv),
        "--json",
    ];
    let report = json(&arguments);
    for field in ["version", "revision", "kernels", "model"] {
        assert!(!report[field].as_str().unwrap().is_empty(), "{field}");
    }
    let linear_bytes = report["linear_bytes"].as_u64().unwrap();
    assert!(report["weight_bytes"].as_u64().unwrap() > linear_bytes && linear_bytes > 0);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        for phase in ["prefill", "decode"] {
            let number = |field: &str| row[format!("{phase}_{field}")].as_f64().unwrap();
            let samples = row[format!("{phase}_samples")].as_array().unwrap();
            let samples: Vec<f64> = samples.iter().map(|sample| sample.as_f64().unwrap()).collect();
            assert_eq!(samples.len(), 2);
            assert!(
                samples.contains(&number("tokens_per_s")),
                "the median is a sample"
            );
            assert!((number("mean") - (samples[0] + samples[1]) / 2.0).abs() <= 1e-9 * number("mean"));
            let deviation = (samples[0] - samples[1]).abs() / 2.0_f64.sqrt();
            assert!((number("stddev") - deviation).abs() <= 1e-6 * number("mean"));
            assert!(number("spread") >= 0.0);
        }
        assert_eq!(
            (&row["prompt_tokens"], &row["generate_tokens"]),
            (&8.into(), &2.into())
        );
        assert!(row["threads"].as_u64().unwrap() > 0 && row["load_s"].as_f64().unwrap() > 0.0);
        assert!(row["decode_share_of_read"].as_f64().unwrap() > 0.0);
        let cache = report["last_level_cache_bytes"].as_u64();
        assert_eq!(
            row["linears_fit_cache"],
            cache.is_some_and(|cache| linear_bytes < cache)
        );
        let read = row["decode_read_bytes_per_s"].as_f64().unwrap();
        let best = report["machine"][0]["read_bytes_per_s"].as_f64().unwrap();
        assert!((row["decode_share_of_read"].as_f64().unwrap() / (read / best) - 1.0).abs() < 1e-9);
    }
    assert_eq!(rows[1]["batch"], 2);
    let samples = report["machine"][0]["read_bytes_per_s_samples"]
        .as_array()
        .unwrap();
    let largest = samples
        .iter()
        .map(|sample| sample.as_f64().unwrap())
        .fold(0.0, f64::max);
    assert_eq!(report["machine"][0]["read_bytes_per_s"], largest);
    if cfg!(target_os = "linux") {
        assert_eq!(samples.len(), 2, "before and after");
    }
    let csv = fs::read_to_string(csv).unwrap();
    let columns = csv
        .lines()
        .map(|line| line.split(',').count())
        .collect::<Vec<_>>();
    assert_eq!(columns.len(), 3, "{csv}");
    assert!(columns.iter().all(|&count| count == columns[0]), "{csv}");
}

#[test]
fn bench_times_prompts_or_decoding_alone_and_each_combination_once() {
    let folder = model();
    let report = json(&[
        "bench", &folder, "-p", "0,6", "-n", "3,3", "-t", "1,1", "-r", "1", "--json",
    ]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows[0]["prefill_tokens_per_s"].is_null() && rows[0]["decode_tokens_per_s"].is_f64());
    let report = json(&[
        "bench", &folder, "-p", "6", "-n", "0", "-t", "1", "-r", "1", "--json",
    ]);
    let row = &report["rows"][0];
    assert!(row["decode_tokens_per_s"].is_null() && row["prefill_tokens_per_s"].is_f64());
}

#[test]
fn bench_refuses_what_can_not_be_before_any_work() {
    let folder = model();
    for counts in [["8,2048", "8"], ["0", "0"]] {
        let started = std::time::Instant::now();
        // A hundred thousand rounds of what is possible would take minutes.
        let output = dualgrain(&["bench", &folder, "-p", counts[0], "-n", counts[1], "-r", "100000"]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("tokens"), "{message}");
        assert!(started.elapsed().as_secs() < 60, "{message}");
    }
}

#[cfg(unix)]
#[test]
fn bench_keeps_what_it_has_measured_when_it_is_interrupted() {
    let folder = model();
    let csv = scratch("bench-interrupted").join("rows.csv");
    let arguments = [
        "bench",
        &folder,
        "-p",
        "4",
        "-n",
        "1,2000",
        "-r",
        "40",
        "-t",
        "1",
        "--csv",
        text(&csv),
        "--json",
    ];
    let child = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = || fs::read_to_string(&csv).unwrap_or_default().lines().count();
    let started = std::time::Instant::now();
    while lines() < 2 {
        assert!(started.elapsed().as_secs() < 120, "no row was written");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 1);
    assert_eq!(lines(), 2);
}

#[test]
fn more_threads_than_cores_are_warned_of() {
    let folder = model();
    let threads = (2 * std::thread::available_parallelism().unwrap().get()).to_string();
    let output = dualgrain(&["bench", &folder, "-p", "4", "-n", "1", "-r", "1", "-t", &threads]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning") && stderr(&output).contains("cores"));
}
