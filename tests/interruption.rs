//! What interruptions leave behind: Ctrl-C, kill -9, a full disk, an output that cannot be written. Nothing that
//! existed is lost, nothing half-made looks like a model, and `--resume` ends with the same bytes.
#![cfg(unix)]

mod drawn;
mod program;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dualgrain_testing::skipped;
use program::stderr;

/// Windows of calibration: enough that a run can be caught in the middle.
const WINDOWS: &str = "12";

fn original() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny")
}

fn scratch(name: &str) -> PathBuf {
    program::scratch("interruption", name)
}

fn quantize(out: &Path, more: &[&str]) -> Command {
    quantize_model(&original(), out, more)
}

/// The search alone where `more` names no other: it is quicker, and interrupted in the same places.
fn quantize_model(model: &Path, out: &Path, more: &[&str]) -> Command {
    let search: &[&str] = match more.contains(&"--search") {
        true => &[],
        false => &["--search", "dgq"],
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
    command
        .arg("quantize")
        .arg(model)
        .arg("--out")
        .arg(out)
        .args(["--windows", WINDOWS])
        .args(search)
        .args(more);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Starts a run and sends `signal` once the journal holds `blocks` finished blocks.
fn interrupt(out: &Path, signal: &str, blocks: usize, more: &[&str]) -> Output {
    interrupt_run(quantize(out, more), out, signal, blocks)
}

fn interrupt_run(mut run: Command, out: &Path, signal: &str, blocks: usize) -> Output {
    let child: Child = run.spawn().unwrap();
    let started = Instant::now();
    while finished_blocks(out) < blocks {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "the run never finished {blocks} blocks"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    send(&child, signal);
    child.wait_with_output().unwrap()
}

/// Residuals in the journal: one is written at the end of every block.
fn finished_blocks(out: &Path) -> usize {
    let journal = out.with_file_name(format!("{}.journal", out.file_name().unwrap().to_str().unwrap()));
    let Ok(entries) = fs::read_dir(journal) else {
        return 0;
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| {
            name.strip_prefix("residual-")?
                .strip_suffix(".f32")?
                .parse::<usize>()
                .ok()
        })
        .max()
        .map_or(0, |last| last + 1)
}

fn tensors(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn a_run_resumed_after_a_kill_or_ctrl_c_ends_with_the_same_bytes() {
    let plain = [("killed", "-KILL", 1), ("stopped", "-INT", 3)];
    resumes_to_the_same_bytes(&original(), &scratch("resume"), &[], &plain);
    let transforms = ["--rotate", "--hadamard-down"];
    let killed = [("killed", "-KILL", 2)];
    resumes_to_the_same_bytes(&original(), &scratch("resume-rotated"), &transforms, &killed);
}

/// Experts are quantized by the tokens that were sent to them: the journal goes on with the same ones.
#[test]
fn a_mixture_resumed_after_a_kill_or_ctrl_c_ends_with_the_same_bytes() {
    let folder = scratch("resume-mixture");
    let model = folder.join("model");
    drawn::write(&drawn::family("qwen3_moe", 8), &model);
    let interruptions = [("killed", "-KILL", 1), ("stopped", "-INT", 3)];
    resumes_to_the_same_bytes(&model, &folder, &["--search", "compensate"], &interruptions);
    let whole: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("whole/config.json")).unwrap()).unwrap();
    let of_last = "model.layers.7.mlp.experts.3.down_proj";
    assert_eq!(whole["quantization_config"]["tensors"][of_last], "w4", "{whole}");
}

/// Interrupts runs with `options`: (name, signal, blocks that are finished by then).
fn resumes_to_the_same_bytes(
    model: &Path,
    folder: &Path,
    options: &[&str],
    interruptions: &[(&str, &str, usize)],
) {
    let whole = folder.join("whole");
    let run = |out: &Path, more: &[&str]| quantize_model(model, out, &[options, more].concat());
    succeed(run(&whole, &["--threads", "1"]));
    for &(name, signal, blocks) in interruptions {
        let out = folder.join(name);
        let output = interrupt_run(run(&out, &["--threads", "2"]), &out, signal, blocks);
        assert!(!out.exists(), "{name}: a half-made folder was left");
        if signal == "-INT" {
            assert_eq!(output.status.code(), Some(130));
            assert!(stderr(&output).contains("--resume"));
        }
        succeed(run(&out, &["--resume", "--threads", "1"]));
        assert!(
            tensors(&out) == tensors(&whole),
            "{name}: other bytes after --resume"
        );
        assert_eq!(
            fs::read(out.join("config.json")).unwrap(),
            fs::read(whole.join("config.json")).unwrap()
        );
    }
}

#[test]
fn a_journal_is_not_resumed_with_other_options() {
    let out = scratch("options").join("out");
    interrupt(&out, "-KILL", 1, &[]);
    let output = quantize(&out, &["--resume", "--group-size", "64"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("group size"));
}

#[test]
fn replacing_keeps_the_old_model_until_the_new_one_is_whole() {
    let out = scratch("replace").join("out");
    succeed(quantize(&out, &["--search", "rtn"]));
    let before = tensors(&out);
    interrupt(&out, "-KILL", 1, &["--replace"]);
    assert!(tensors(&out) == before, "the old model changed");
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Runs `command` until it has told a line with `words`, sends `signal`, and gives the exit code.
fn code_after(command: &mut Command, words: &str, signal: &str) -> Option<i32> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let is_told = lines.any(|line| line.unwrap().contains(words));
    assert!(is_told, "`{words}` was never told");
    send(&child, signal);
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let code = child.wait().unwrap().code();
    assert!(
        rest.iter().any(|line| line.starts_with("error: interrupted")),
        "{rest:?}"
    );
    code
}

#[test]
fn quickstart_ends_with_130_wherever_it_is() {
    for (step, signal) in [("1/3", "-INT"), ("2/3", "-TERM")] {
        let out = scratch("quickstart").join("out");
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
        command.arg("quickstart").arg("--out").arg(&out);
        assert_eq!(code_after(&mut command, step, signal), Some(130), "{step}");
        assert!(!out.join("report.html").exists(), "{step}");
    }
}

#[test]
fn bench_keeps_what_it_measured_and_ends_with_130() {
    let rows = scratch("bench").join("rows.csv");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
    command
        .arg("bench")
        .arg(original())
        .args(["-p", "1,512", "-n", "1", "-r", "300", "--device", "cpu", "--csv"])
        .arg(&rows);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = || fs::read_to_string(&rows).unwrap_or_default().lines().count();
    let started = Instant::now();
    // The names of the columns, and the row of one token, which takes no time beside the other.
    while written() < 2 {
        assert!(started.elapsed() < Duration::from_secs(120), "no row came");
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("interrupted at"), "{}", stderr(&output));
    assert!(
        program::stdout(&output).contains("decode"),
        "what was measured is shown"
    );
    assert_eq!(written(), 2);
}

#[test]
fn serve_ends_with_0_when_it_is_told_to_stop() {
    for signal in ["-INT", "-TERM"] {
        let (mut child, _) = program::start_server(&[], Stdio::null());
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn an_output_that_cannot_be_made_is_named() {
    let output = quantize(Path::new("/proc/dualgrain-test/out"), &[])
        .output()
        .unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("/proc/dualgrain-test"), "{message}");
}

/// A file system of two megabytes: too small for the journal. Needs the right to mount in a namespace of its own.
#[test]
fn a_full_disk_ends_the_run_with_an_error_that_says_so() {
    let folder = scratch("full");
    let script = format!(
        "mount -t tmpfs -o size=2m none '{disk}' && '{binary}' quantize '{model}' --out '{disk}/out' --windows 4 --method dgq; \
         code=$?; ls -A '{disk}' >&2; exit $code",
        disk = folder.display(),
        binary = env!("CARGO_BIN_EXE_dualgrain"),
        model = original().display(),
    );
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &script])
        .output();
    let Ok(output) = output else {
        skipped("small-disk", "unshare is missing, so no small disk can be made");
        return;
    };
    let message = stderr(&output);
    if message.contains("unshare failed") || message.contains("mount:") {
        skipped(
            "small-disk",
            format_args!("no right to mount a small disk: {message}"),
        );
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.to_lowercase().contains("space") && !message.contains("panicked"),
        "{message}"
    );
    assert!(
        !message.lines().any(|line| line == "out"),
        "a half-made folder was left: {message}"
    );
}
