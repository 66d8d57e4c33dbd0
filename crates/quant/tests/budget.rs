//! `--bits`: a scheme for every linear under a budget, chosen by what rounding does on text that calibration does not touch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::Statistics;
use dualgrain_device::naive::NaiveDevice;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{ModelConfig, Storage, Weights};
use dualgrain_quant::{JournalPolicy, Monitor, QuantError, QuantJob, QuantSummary, Search, plan};
use dualgrain_threads::Pool;

/// Tells the child process of a test where to write.
const CHILD_OUT: &str = "DUALGRAIN_TEST_BUDGET_OUT";

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny")
}

fn tokens() -> Vec<u32> {
    let config = ModelConfig::load(&tiny()).unwrap();
    let tokenizer = Tokenizer::load(&tiny(), config.vocab_size).unwrap();
    let text = std::fs::read_to_string(tiny().join("sample_calib.txt")).unwrap();
    tokenizer.encode(&text, true).unwrap()
}

/// 4.3 bits, the search alone on four windows of 64 tokens.
fn job(out: &Path) -> QuantJob {
    let mut job = QuantJob::new(tiny(), out);
    job.options.search = Search::TwoPhase;
    (job.options.num_windows, job.options.window_tokens) = (4, 64);
    job.options.bits = Some(4.3);
    job
}

fn quantize_on<D: Statistics>(
    device: &D,
    job: &QuantJob,
    threads: usize,
) -> Result<QuantSummary, QuantError> {
    dualgrain_quant::quantize(job, device, &Pool::new(threads), &tokens(), Monitor::silent())
}

fn quantize(job: &QuantJob, threads: usize) -> Result<QuantSummary, QuantError> {
    quantize_on(&CpuDevice::new(threads).unwrap(), job, threads)
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let read = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

/// Stored bits of the block linears over their weights.
fn bits(dir: &Path) -> f64 {
    let config = ModelConfig::load(dir).unwrap();
    Storage::measure(&Weights::open(dir).unwrap(), &config)
        .unwrap()
        .bits_per_weight()
}

#[test]
fn a_folder_takes_the_bits_that_its_report_says_and_no_more_than_were_allowed() {
    let dir = tempfile::tempdir().unwrap();
    for (budget, schemes) in [
        (4.3, vec![]),
        (4.6, vec!["down=w8", "0.qkv=w4/32"]),
        (8.1, vec![]),
    ] {
        let mut job = job(&dir.path().join(budget.to_string()));
        job.options.bits = Some(budget);
        job.options.schemes = schemes.iter().map(|rule| rule.parse().unwrap()).collect();
        if schemes.contains(&"down=w8") {
            job.options.bits = Some(5.9);
        }
        let choice = quantize(&job, 2).unwrap().report.choice.unwrap();
        let stored = bits(&job.out_dir);
        assert!((stored - choice.bits).abs() < 1e-9, "{stored} of {}", choice.bits);
        assert!(stored <= job.options.bits.unwrap());
        assert!(choice.expected_divergence < choice.divergence_of_fewest_bits);
        let is_fixed = |linear: &dualgrain_quant::ChosenLinear| linear.sensitivity.role == "down";
        assert!(schemes.is_empty() || !choice.linears.iter().any(is_fixed));
    }
}

#[test]
fn the_choice_does_not_depend_on_threads_device_or_where_streams_wait() {
    let dir = tempfile::tempdir().unwrap();
    let one = job(&dir.path().join("one"));
    quantize(&one, 1).unwrap();
    let mut spilled = job(&dir.path().join("spilled"));
    spilled.spill_above_bytes = 0;
    quantize(&spilled, 3).unwrap();
    assert!(files(&one.out_dir) == files(&spilled.out_dir));
}

#[test]
fn the_naive_device_chooses_the_same() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/families/qwen3");
    let dir = tempfile::tempdir().unwrap();
    let text: Vec<u32> = (0..200_u32).map(|i| (i * 37 + i * i) % 64).collect();
    let choice = |name: &str, device: &dyn Fn(&QuantJob, &[u32]) -> QuantSummary| {
        let mut job = job(&dir.path().join(name));
        job.model_dir.clone_from(&fixture);
        (job.options.num_windows, job.options.window_tokens) = (3, 32);
        job.options.bits = Some(6.0);
        device(&job, &text).report.choice.unwrap()
    };
    let pool = Pool::new(1);
    let cpu = choice("cpu", &|job, text| {
        let device = CpuDevice::new(1).unwrap();
        dualgrain_quant::quantize(job, &device, &pool, text, Monitor::silent()).unwrap()
    });
    let naive = choice("naive", &|job, text| {
        dualgrain_quant::quantize(job, &NaiveDevice::default(), &pool, text, Monitor::silent()).unwrap()
    });
    assert_eq!(cpu, naive);
}

/// What a killed process runs; does nothing unless a test started it.
#[test]
fn child_quantizes() {
    let Ok(out) = std::env::var(CHILD_OUT) else { return };
    let mut job = job(Path::new(&out));
    job.journal = JournalPolicy::Resume;
    quantize(&job, 2).unwrap();
}

#[test]
fn a_killed_run_ends_with_the_bytes_of_a_whole_one_wherever_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    quantize(&job(&whole), 3).unwrap();
    let killed = dir.path().join("killed");
    let journal = killed.with_extension("journal");
    // While rounding is measured, when the choice is kept, and behind some blocks.
    for (file, wait_ms) in [("manifest.json", 30), ("choice.json", 1), ("block-0001.json", 5)] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_quantizes", "--nocapture"])
            .env(CHILD_OUT, &killed)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !journal.join(file).exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !killed.join("config.json").exists(),
            "killed too late behind {file}"
        );
    }
    let mut job = job(&killed);
    job.journal = JournalPolicy::Resume;
    quantize(&job, 1).unwrap();
    assert!(files(&whole) == files(&killed));
    assert!(!journal.exists());
}

#[test]
fn what_a_budget_cannot_buy_is_said_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(&dir.path().join("out"));
    job.options.bits = Some(4.1);
    let error = quantize(&job, 1).unwrap_err();
    assert!(
        matches!(error, QuantError::Budget { got, .. } if got == 4.1),
        "{error}"
    );
    assert!(error.to_string().contains("at least 4.1"), "{error}");
    job.options.bits = Some(4.3);
    job.options.window_tokens = 512;
    let config = ModelConfig::load(&tiny()).unwrap();
    let device = CpuDevice::new(1).unwrap();
    let error = plan(&device, &config, &job, Some(1_000)).unwrap_err();
    assert!(
        matches!(
            error,
            QuantError::NothingHeldOut {
                got: 1_000,
                expected: 1_280,
                ..
            }
        ),
        "{error}"
    );
    assert!(!dir.path().join("out.journal").exists());
    // A plan knows the size of what it does not know the schemes of.
    let stated = plan(&device, &config, &job, Some(20_000)).unwrap();
    job.options.bits = None;
    let usual = plan(&device, &config, &job, Some(20_000)).unwrap();
    assert!(stated.output_bytes > usual.output_bytes && stated.time_s > usual.time_s);
}
