//! Linears of one model in different schemes: what is asked for is what is stored, runs and is planned.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::Statistics;
use dualgrain_device::naive::NaiveDevice;
use dualgrain_engine::evaluate::{Windows, perplexity};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{
    BlockSpec, LoadOptions, Model, ModelConfig, Role, Session, SessionLimits, Storage, Weights,
};
use dualgrain_format::{ActivationScheme, GroupSize, LinearScheme};
use dualgrain_quant::{Monitor, QuantError, QuantJob, QuantSummary, Search, plan, quantize};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny")
}

fn tokens(text: &str) -> Vec<u32> {
    let config = ModelConfig::load(&tiny()).unwrap();
    let tokenizer = Tokenizer::load(&tiny(), config.vocab_size).unwrap();
    let text = std::fs::read_to_string(tiny().join(text)).unwrap();
    tokenizer.encode(&text, true).unwrap()
}

fn job(out: &Path, schemes: &[&str]) -> QuantJob {
    let mut job = QuantJob::new(tiny(), out);
    job.options.search = Search::TwoPhase;
    job.options.num_windows = 4;
    job.options.window_tokens = 128;
    job.options.schemes = schemes.iter().map(|rule| rule.parse().unwrap()).collect();
    job
}

fn run(job: &QuantJob) -> Result<QuantSummary, QuantError> {
    let device = CpuDevice::new(2).unwrap();
    let calibration = tokens("sample_calib.txt");
    quantize(job, &device, device.pool(), &calibration, Monitor::silent())
}

fn loss(dir: &Path) -> f64 {
    let device = Arc::new(CpuDevice::new(2).unwrap());
    let model = Arc::new(Model::load(device, dir, &LoadOptions::default()).unwrap());
    let windows = Windows::from_tokens("sample", tokens("sample_eval.txt"), 256, Some(6)).unwrap();
    perplexity(&model, &windows, &mut |_, _| ()).unwrap().mean_nll
}

/// Logits after ten tokens.
fn logits<D: Statistics>(device: D, dir: &Path) -> Vec<u32> {
    let device = Arc::new(device);
    let model = Model::load(device.clone(), dir, &LoadOptions::default()).unwrap();
    let mut session = Session::new(Arc::new(model), SessionLimits::new(1, 16, 16)).unwrap();
    let last = session.prefill(0, &tokens("sample_eval.txt")[..10]).unwrap();
    let rows = session.logits(&[last]).unwrap();
    let mut logits = vec![0.0; device.columns(rows)];
    device.download(rows, 0..1, &mut logits).unwrap();
    logits.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn linears_are_stored_in_the_schemes_that_rules_give_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("mixed");
    let rules = ["down=w8", "up=w4/32", "1.up=w4/channel", "qkv=float", "0.qkv=w4"];
    let summary = run(&job(&out, &rules)).unwrap();

    let config = ModelConfig::load(&out).unwrap();
    let (original, stored) = (Weights::open(&tiny()).unwrap(), Weights::open(&out).unwrap());
    let quantization = config.quantization.clone().unwrap();
    for layer in 0..config.num_layers {
        for (id, linear) in BlockSpec::new(&config, layer).linears {
            let expected = match (id.role, layer) {
                (Role::Down, _) => LinearScheme::W8,
                (Role::Up, 1) => LinearScheme::w4(GroupSize::WholeRow),
                (Role::Up, _) => LinearScheme::w4(GroupSize::Along(32)),
                (Role::Qkv, 1..) => LinearScheme::Float,
                (Role::Qkv | Role::Out, _) => LinearScheme::w4(GroupSize::Along(128)),
            };
            for member in linear.members {
                assert_eq!(quantization.scheme(&member.name), expected, "{}", member.name);
                let weight = format!("{}.weight", member.name);
                if expected == LinearScheme::Float {
                    assert_eq!(stored.raw(&weight).unwrap(), original.raw(&weight).unwrap());
                } else {
                    assert!(!stored.contains(&weight), "{weight} is stored twice");
                }
            }
        }
    }
    let kept = config.num_layers - 1;
    assert_eq!(summary.report.linears.len(), 4 * config.num_layers - kept);
    let storage = Storage::measure(&stored, &config).unwrap();
    assert_eq!(storage.schemes["float"], 3 * kept);
    assert_eq!(storage.schemes["w8"], config.num_layers);
    assert!(storage.w4_weights < storage.linear_weights);

    let worse = loss(&out) - loss(&tiny());
    assert!(worse < 0.12, "{worse} nats worse");
    let cpu = CpuDevice::new(2).unwrap();
    assert_eq!(logits(cpu, &out), logits(NaiveDevice::new(), &out));
}

#[test]
fn eight_bits_lose_less_than_four_with_static_activations_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut losses = Vec::new();
    for (name, rules) in [
        ("four", [].as_slice()),
        ("eight", ["qkv=w8", "out=w8", "up=w8", "down=w8"].as_slice()),
    ] {
        let mut job = job(&dir.path().join(name), rules);
        job.options.activations = ActivationScheme::Static;
        let summary = run(&job).unwrap();
        let nmse = summary.report.linears.iter().map(|linear| linear.weight_nmse);
        losses.push(nmse.sum::<f64>());
        assert!(loss(&job.out_dir) - loss(&tiny()) < 0.3, "{name}");
    }
    assert!(losses[1] < 0.02 * losses[0], "{losses:?}");
}

#[test]
fn the_plan_knows_the_size_of_mixed_schemes() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(&dir.path().join("mixed"), &["down=w8", "qkv=float"]);
    let config = ModelConfig::load(&tiny()).unwrap();
    let device = CpuDevice::new(1).unwrap();
    let planned = plan(&device, &config, &job, None).unwrap();
    run(&job).unwrap();
    let stored = Weights::open(&job.out_dir).unwrap().size_bytes() as f64;
    let ratio = planned.output_bytes as f64 / stored;
    assert!((0.98..1.02).contains(&ratio), "{ratio}");
}

#[test]
fn a_rule_for_a_block_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(&dir.path().join("out"), &["77.down=w8"]);
    let config = ModelConfig::load(&tiny()).unwrap();
    let planned = plan(&CpuDevice::new(1).unwrap(), &config, &job, None).map(|_| ());
    for outcome in [planned, run(&job).map(|_| ())] {
        let error = outcome.unwrap_err().to_string();
        assert!(
            error.contains("77.down=w8") && error.contains("blocks 0 to"),
            "{error}"
        );
    }
    assert!(!job.out_dir.exists());
}
