//! The method that compensates: never worse than the search it begins with, on inputs that break careless code; the same on
//! any number of threads; whole runs beside the original model, killed and resumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use dualgrain_cpu::CpuDevice;
use dualgrain_device::{ActivationScale, Device};
use dualgrain_engine::ModelConfig;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_format::{GroupSize, LinearWeights, QuantizedLinear};
use dualgrain_quant::methods::method::{FloatRows, LinearTask, Method, Resources};
use dualgrain_quant::methods::output_error::output_error;
use dualgrain_quant::{
    InputStatistics, JournalPolicy, Meter, Monitor, Observation, Progress, QuantJob, QuantSummary, Search,
    Step, plan,
};
use dualgrain_testing::peak_resident_bytes;

fn noise(index: usize) -> f32 {
    let mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) as u32 >> 8) as f32 / (1 << 23) as f32 - 1.0
}

fn weights(k: usize) -> Vec<f32> {
    let weight = |row: usize, j: usize| {
        let noise = noise(row * k + j);
        match row {
            0 => 0.0,
            1 => noise.abs() + 0.5,
            2 if j == k / 2 => 40.0,
            3 => 1e-20 * noise,
            4 => 1e12 * noise,
            5 => f32::from_bits(noise.to_bits() & 0xff),
            _ => noise * noise * noise,
        }
    };
    (0..40)
        .flat_map(|row| (0..k).map(move |j| weight(row, j)))
        .collect()
}

/// Statistics of `tokens` tokens with a constant channel, a loud one and dead ones, `scale` times as loud as usual.
fn inputs(k: usize, tokens: usize, scale: f32) -> InputStatistics {
    let device = CpuDevice::new(1).unwrap();
    let value = |i: usize| match i % k {
        2 => 1.5,
        3 => 30.0 * noise(i),
        5 | 6 => 0.0,
        j => noise(i) + 0.3 * (j % 4) as f32,
    };
    let x: Vec<f32> = (0..tokens * k).map(|i| scale * value(i)).collect();
    let mut observation = Observation::new(&device, k).unwrap();
    if tokens > 0 {
        let mut matrix = device.matrix(tokens, k).unwrap();
        device.upload(&mut matrix, &x).unwrap();
        observation.add(&matrix, 0, 1).unwrap();
    }
    observation.finish(0, "qkv").unwrap()
}

fn quantized(
    threads: usize,
    weights: &[f32],
    statistics: &InputStatistics,
    group_size: GroupSize,
    search: Search,
) -> QuantizedLinear {
    by_method(&*search.method(), threads, weights, statistics, group_size)
}

fn by_method(
    method: &dyn Method<CpuDevice>,
    threads: usize,
    weights: &[f32],
    statistics: &InputStatistics,
    group_size: GroupSize,
) -> QuantizedLinear {
    let device = CpuDevice::new(threads).unwrap();
    let rows = FloatRows {
        weights,
        k: statistics.maxima.len(),
        bias: None,
    };
    let task = LinearTask {
        rows,
        statistics,
        group_size,
        activations: ActivationScale::PerToken,
    };
    let resources = Resources {
        device: &device,
        pool: device.pool(),
        meter: &Meter::new(Monitor::silent(), 0),
    };
    match method.quantize(&resources, &task).unwrap() {
        (LinearWeights::W4(linear), _) => linear,
        (other, _) => panic!("not in four bits: {other:?}"),
    }
}

#[test]
fn no_row_ends_with_more_error_than_the_search_leaves() {
    let device = CpuDevice::new(2).unwrap();
    for (k, tokens, scale) in [
        (200, 400, 1.0),
        (145, 3, 1.0),
        (64, 0, 1.0),
        (128, 90, 1e-18),
        (128, 90, 1e12),
    ] {
        let (weights, statistics) = (weights(k), inputs(k, tokens, scale));
        for size in [GroupSize::Along(32), GroupSize::Along(128), GroupSize::WholeRow] {
            let searched = quantized(2, &weights, &statistics, size, Search::TwoPhase);
            let compensated = quantized(2, &weights, &statistics, size, Search::Compensate);
            let mut better = 0;
            for (row, weights) in weights.chunks_exact(k).enumerate() {
                let error = |linear: &QuantizedLinear| {
                    let row = linear.select_rows(&[row]).unwrap();
                    output_error(&device, &statistics.gram, weights, &row).unwrap()
                };
                let (before, after) = (error(&searched), error(&compensated));
                let is_worse = after > before;
                assert!(
                    !is_worse,
                    "K {k}, {tokens} tokens, {size}, row {row}: {before} to {after}"
                );
                better += usize::from(after < before);
            }
            assert!(
                tokens == 0 || better > 20,
                "K {k}, {tokens} tokens, {size}: {better} rows better"
            );
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (weights, statistics) = (weights(200), inputs(200, 300, 1.0));
    let run = |threads| {
        quantized(
            threads,
            &weights,
            &statistics,
            GroupSize::Along(64),
            Search::Compensate,
        )
    };
    let alone = run(1);
    assert_eq!(run(2), alone);
    assert_eq!(run(5), alone);
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny")
}

/// The default's windows, as many as a correction needs, but short.
fn job(out: &Path) -> QuantJob {
    let mut job = QuantJob::new(tiny(), out);
    job.options.window_tokens = 12;
    job
}

fn quantize(job: &QuantJob, threads: usize, monitor: Monitor<'_>) -> Option<QuantSummary> {
    let config = ModelConfig::load(&tiny()).unwrap();
    let tokenizer = Tokenizer::load(&tiny(), config.vocab_size).unwrap();
    let text = std::fs::read_to_string(tiny().join("sample_calib.txt")).unwrap();
    let tokens = tokenizer.encode(&text, true).unwrap();
    let device = CpuDevice::new(threads).unwrap();
    dualgrain_quant::quantize(job, &device, device.pool(), &tokens, monitor).ok()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(entry.path()).unwrap())
    });
    named.collect()
}

#[test]
fn a_run_that_is_killed_and_cut_off_ends_with_the_bytes_of_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let summary = quantize(&job(&whole), 2, Monitor::silent()).unwrap();
    assert_eq!(summary.report.notice, None);
    let mut cut = job(&dir.path().join("cut"));
    let mut child = start_child(&cut.out_dir);
    let record = dir.path().join("cut.journal/block-0001.json");
    while !record.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    cut.journal = JournalPolicy::Resume;
    cut.spill_above_bytes = 0;
    let cancel = AtomicBool::new(false);
    let progress = |p: Progress<'_>| {
        if p.phase.starts_with("block 5/6: down") {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    assert!(quantize(&cut, 3, Monitor::new(&progress, &cancel)).is_none());
    assert_eq!(quantize(&cut, 1, Monitor::silent()).unwrap().num_resumed, 4);
    let cut = files(&cut.out_dir);
    for (name, bytes) in files(&whole) {
        assert!(cut.get(&name) == Some(&bytes), "{name} differs");
    }
}

/// Tells the child process of a test where to write.
const CHILD_OUT: &str = "DUALGRAIN_TEST_CHILD_OUT";

/// What is watched or killed; does nothing unless a test started it.
#[test]
fn child_quantizes() {
    let Ok(out) = std::env::var(CHILD_OUT) else { return };
    quantize(&job(Path::new(&out)), 2, Monitor::silent()).unwrap();
}

fn start_child(out: &Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_quantizes", "--nocapture"])
        .env(CHILD_OUT, out)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn resident_memory_stays_within_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let config = ModelConfig::load(&tiny()).unwrap();
    let stated = plan(&CpuDevice::new(2).unwrap(), &config, &job(&out), Some(80_000)).unwrap();
    let mut child = start_child(&out);
    let peak_bytes = peak_resident_bytes(&mut child);
    assert!(out.join("config.json").exists());
    let peak = stated.peak_memory_bytes;
    assert!(peak_bytes > 0 && peak_bytes <= peak, "{peak_bytes} of {peak}");
}

#[test]
fn with_few_windows_the_report_says_what_was_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(&dir.path().join("out"));
    job.options.num_windows = 5;
    let summary = quantize(&job, 2, Monitor::silent()).unwrap();
    let notice = summary.report.notice.unwrap();
    assert!(
        notice.contains("5 calibration windows") && notice.contains("that part was off"),
        "{notice}"
    );
}

#[test]
fn every_step_that_is_left_out_changes_the_codes_and_is_named() {
    let (weights, statistics) = (weights(200), inputs(200, 300, 1.0));
    let size = GroupSize::Along(64);
    let whole = quantized(2, &weights, &statistics, size, Search::Compensate);
    let of_linear = Step::ALL
        .into_iter()
        .filter(|step| !matches!(step, Step::Correction | Step::StreamCorrection));
    for step in of_linear {
        let method = Search::Compensate.method_without([step].into_iter().collect());
        let without = by_method(&*method, 2, &weights, &statistics, size);
        assert_ne!(without, whole, "{step}");
    }
    let dir = tempfile::tempdir().unwrap();
    let tensors = |without: Step| {
        let mut job = job(&dir.path().join(without.to_string()));
        job.options.ablation = [without].into_iter().collect();
        job.options.window_tokens = 3;
        let report = quantize(&job, 2, Monitor::silent()).unwrap().report;
        let named = report.options.iter().find(|(name, _)| name == "left out");
        assert_eq!(named.map(|(_, steps)| steps), Some(&without.to_string()));
        std::fs::read(job.out_dir.join("model.safetensors")).unwrap()
    };
    assert!(tensors(Step::Correction) != tensors(Step::StreamCorrection));
}

/// The checksum of the bundled model's tensors: what the method that goes on from the search does must not reach them. Arithmetic that changes
/// moves it (last on 2026-11-30, outputs rounded to bfloat16).
#[test]
fn the_search_alone_writes_these_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = QuantJob::new(tiny(), dir.path().join("out"));
    job.options.search = Search::TwoPhase;
    (job.options.num_windows, job.options.window_tokens) = (4, 64);
    quantize(&job, 2, Monitor::silent()).unwrap();
    let tensors = std::fs::read(job.out_dir.join("model.safetensors")).unwrap();
    assert_eq!(crc32fast::hash(&tensors), 0xb6ed_50dd);
}
