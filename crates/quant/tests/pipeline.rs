//! Whole runs on the bundled model: what comes out loads and works, and a run that is killed loses nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dualgrain_cpu::CpuDevice;
use dualgrain_engine::evaluate::{Windows, perplexity};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{LoadOptions, Model, ModelConfig};
use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme};
use dualgrain_quant::{
    JournalPolicy, Monitor, Progress, QuantError, QuantJob, QuantSummary, Search, SmoothPairs, Smoothing,
    plan,
};
use dualgrain_testing::peak_resident_bytes;

/// Tells the child process of a test where to write.
const CHILD_OUT: &str = "DUALGRAIN_TEST_CHILD_OUT";

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny")
}

fn tokens(text: &str) -> Vec<u32> {
    let config = ModelConfig::load(&tiny()).unwrap();
    let tokenizer = Tokenizer::load(&tiny(), config.vocab_size).unwrap();
    let text = std::fs::read_to_string(tiny().join(text)).unwrap();
    tokenizer.encode(&text, true).unwrap()
}

fn device(threads: usize) -> Arc<CpuDevice> {
    Arc::new(CpuDevice::new(threads).unwrap())
}

/// Runs `job` on `threads` threads.
fn quantize(
    job: &QuantJob,
    threads: usize,
    tokens: &[u32],
    monitor: Monitor<'_>,
) -> Result<QuantSummary, QuantError> {
    let device = device(threads);
    dualgrain_quant::quantize(job, &*device, device.pool(), tokens, monitor)
}

/// A job small enough for a test: the search alone on four windows of 128 tokens. `compensate.rs` has the default.
fn job(out: &Path) -> QuantJob {
    let mut job = QuantJob::new(tiny(), out);
    job.options.search = Search::TwoPhase;
    job.options.num_windows = 4;
    job.options.window_tokens = 128;
    job
}

fn loss(dir: &Path) -> f64 {
    let model = Arc::new(Model::load(device(2), dir, &LoadOptions::default()).unwrap());
    let windows = Windows::from_tokens("sample", tokens("sample_eval.txt"), 256, Some(6)).unwrap();
    perplexity(&model, &windows, &mut |_, _| ()).unwrap().mean_nll
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn every_choice_of_options_gives_a_model_that_loads_and_speaks() {
    let original = loss(&tiny());
    let calibration = tokens("sample_calib.txt");
    let dir = tempfile::tempdir().unwrap();
    let all_pairs = SmoothPairs {
        v_out: true,
        ..SmoothPairs::default()
    };
    type Change = fn(&mut QuantJob);
    let changes: [(&str, f64, Change); 11] = [
        ("search alone", 0.12, |_| ()),
        ("compensated", 0.12, |job| job.options.search = Search::Compensate),
        ("rtn without smoothing", 0.3, |job| {
            job.options.search = Search::Rtn;
            job.options.smoothing = Smoothing::Off;
        }),
        ("group 32, alpha smoothing", 0.1, |job| {
            job.options.group_size = GroupSize::Along(32);
            job.options.smoothing = Smoothing::Alpha(0.5);
        }),
        ("one scale a row", 0.8, |job| {
            job.options.group_size = GroupSize::WholeRow
        }),
        ("static activations and cache", 0.3, |job| {
            job.options.activations = ActivationScheme::Static;
            job.options.kv_cache = CacheScheme::Int8Static;
        }),
        ("float head, f16 cache", 0.12, |job| {
            job.options.lm_head = LinearScheme::Float;
            job.options.kv_cache = CacheScheme::F16;
        }),
        ("dual-grained head, static activations", 0.35, |job| {
            job.options.lm_head = LinearScheme::w4(GroupSize::Along(32));
            job.options.activations = ActivationScheme::Static;
        }),
        ("spilled", 0.12, |job| job.spill_above_bytes = 0),
        ("rotated and transformed", 0.12, |job| {
            (job.options.rotate, job.options.hadamard_down) = (true, true);
            job.options.smoothing = Smoothing::Off;
        }),
        ("exhaustive", 0.12, |job| job.options.search = Search::Exhaustive),
    ];
    for (name, tolerance, change) in changes {
        let mut job = job(&dir.path().join(name));
        change(&mut job);
        let summary = quantize(&job, 2, &calibration, Monitor::silent()).unwrap();
        let heads = usize::from(job.options.lm_head.group_size().is_some());
        assert_eq!(summary.report.linears.len(), 24 + heads, "{name}");
        let worse = loss(&job.out_dir) - original;
        assert!(worse < tolerance, "{name}: {worse} nats worse");
        assert!(
            !job.out_dir.with_extension("journal").exists(),
            "{name}: the journal stayed"
        );
    }
    let (spilled, kept) = (
        files(&dir.path().join("spilled")),
        files(&dir.path().join("search alone")),
    );
    assert!(
        spilled == kept,
        "where activations wait must not change the model"
    );
    let mut job = job(&dir.path().join("all pairs"));
    job.options.pairs = all_pairs;
    quantize(&job, 2, &calibration, Monitor::silent()).unwrap();
    assert!(loss(&job.out_dir) - original < 0.12);
}

#[test]
fn smoothing_keeps_the_function_and_lowers_the_activation_error() {
    let calibration = tokens("sample_calib.txt");
    let dir = tempfile::tempdir().unwrap();
    let error = |name: &str, smoothing: Smoothing| {
        let mut job = job(&dir.path().join(name));
        job.options.smoothing = smoothing;
        job.options.search = Search::Rtn;
        let report = quantize(&job, 2, &calibration, Monitor::silent()).unwrap().report;
        report
            .linears
            .iter()
            .map(|linear| linear.activation_nmse)
            .sum::<f64>()
    };
    assert!(error("on", Smoothing::Percentile(99.5)) < 0.8 * error("off", Smoothing::Off));
}

/// What a killed process runs; does nothing unless a test started it.
#[test]
fn child_quantizes() {
    let Ok(out) = std::env::var(CHILD_OUT) else { return };
    let mut job = job(Path::new(&out));
    job.journal = JournalPolicy::Resume;
    quantize(&job, 2, &tokens("sample_calib.txt"), Monitor::silent()).unwrap();
}

fn start_child(out: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_quantizes", "--nocapture"])
        .env(CHILD_OUT, out)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes_on_another_number_of_threads() {
    let calibration = tokens("sample_calib.txt");
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    quantize(&job(&whole), 3, &calibration, Monitor::silent()).unwrap();
    let killed = dir.path().join("killed");
    // Kill when a number of blocks is in the journal and a little later, so that every kind of moment is hit.
    for (blocks, wait_ms) in [(0, 1), (1, 7), (3, 20), (4, 3)] {
        let mut child = start_child(&killed);
        let record = killed
            .with_extension("journal")
            .join(format!("block-{blocks:04}.json"));
        while blocks > 0 && !record.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !killed.join("config.json").exists(),
            "a killed run must not look finished"
        );
    }
    let mut job = job(&killed);
    job.journal = JournalPolicy::Resume;
    let summary = quantize(&job, 1, &calibration, Monitor::silent()).unwrap();
    assert!(summary.num_resumed >= 4, "{} blocks resumed", summary.num_resumed);
    for (name, bytes) in files(&whole) {
        assert!(files(&killed).get(&name) == Some(&bytes), "{name} differs");
    }
}

#[test]
fn a_cancelled_run_keeps_its_blocks_and_asks_before_they_are_lost() {
    let calibration = tokens("sample_calib.txt");
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(&dir.path().join("out"));
    let (cancel, last) = (AtomicBool::new(false), Cell::new(0));
    let progress = |p: Progress<'_>| {
        assert!(p.done >= last.get() && p.done <= p.total, "progress goes forward");
        last.set(p.done);
        if p.phase.starts_with("block 3") {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let cancelled = quantize(&job, 2, &calibration, Monitor::new(&progress, &cancel));
    assert!(matches!(cancelled, Err(QuantError::Cancelled)));
    assert!(!job.out_dir.exists());
    let again = quantize(&job, 2, &calibration, Monitor::silent());
    assert!(matches!(again, Err(QuantError::JournalExists { .. })));
    job.journal = JournalPolicy::Resume;
    job.options.group_size = GroupSize::Along(64);
    let other = quantize(&job, 2, &calibration, Monitor::silent())
        .unwrap_err()
        .to_string();
    assert!(other.contains("group size: journal `128`, now `64`"), "{other}");
    job.options.group_size = GroupSize::Along(128);
    assert_eq!(
        quantize(&job, 2, &calibration, Monitor::silent())
            .unwrap()
            .num_resumed,
        2
    );
}

#[test]
fn wrong_inputs_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(&dir.path().join("out"));
    let run = |job: &QuantJob, tokens: &[u32]| quantize(job, 1, tokens, Monitor::silent()).unwrap_err();
    assert!(matches!(run(&job, &[]), QuantError::NoCalibration));
    assert!(matches!(
        run(&job, &[8192]),
        QuantError::Token {
            got: 8192,
            vocab_size: 8192
        }
    ));
    std::fs::create_dir(&job.out_dir).unwrap();
    std::fs::write(job.out_dir.join("mine.txt"), "x").unwrap();
    assert!(run(&job, &[1, 2, 3]).to_string().contains("already exists"));
    job.out_dir = dir.path().join("other");
    job.model_dir = dir.path().join("missing");
    assert!(run(&job, &[1, 2, 3]).to_string().contains("config.json"));
    assert!(!dir.path().join("other.journal").exists());
}

#[test]
fn a_text_shorter_than_a_window_is_used_and_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(&dir.path().join("out"));
    job.options.search = Search::Rtn;
    let summary = quantize(&job, 2, &tokens("sample_calib.txt")[..70], Monitor::silent()).unwrap();
    assert_eq!(
        (summary.report.num_windows, summary.report.window_tokens),
        (1, 70)
    );
    assert!(summary.report.notice.unwrap().contains("70 tokens"));
    let again = quantize(
        &QuantJob::new(&job.out_dir, dir.path().join("twice")),
        1,
        &[1],
        Monitor::silent(),
    );
    assert!(matches!(again, Err(QuantError::AlreadyQuantized { .. })));
}

#[test]
#[cfg(target_os = "linux")]
fn resident_memory_stays_within_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let config = ModelConfig::load(&tiny()).unwrap();
    let num_tokens = Some(tokens("sample_calib.txt").len());
    let stated = plan(&*device(2), &config, &job(&out), num_tokens).unwrap();
    let mut child = start_child(&out);
    let peak_bytes = peak_resident_bytes(&mut child);
    assert!(out.join("config.json").exists());
    assert!(
        peak_bytes > 0 && peak_bytes <= stated.peak_memory_bytes,
        "{peak_bytes} of {}",
        stated.peak_memory_bytes
    );
}
