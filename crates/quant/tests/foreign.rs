//! Models that other programs quantized are quantized again from the floats that their codes mean.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_engine::{LoadOptions, Model, ModelConfig, ModelFolder, Weights};
use dualgrain_quant::{Monitor, QuantJob, quantize};

const CASES: [&str; 7] = [
    "gptq-act-order",
    "gptq-older",
    "gptq-v2",
    "awq",
    "compressed-tensors",
    "fp8",
    "mxfp4",
];

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../engine/tests/fixtures/foreign")
        .join(case)
}

fn quantized(case: &str, out: &Path, change: impl FnOnce(&mut QuantJob)) {
    let mut job = QuantJob::new(fixture(case), out);
    (job.options.num_windows, job.options.window_tokens) = (4, 32);
    change(&mut job);
    let device = CpuDevice::new(2).unwrap();
    let tokens: Vec<u32> = (0..400).map(|i| (i * i + 7 * i) % 60 + 3).collect();
    quantize(&job, &device, device.pool(), &tokens, Monitor::silent()).unwrap();
}

#[test]
fn the_folder_that_comes_out_is_one_of_ours_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        let out = dir.path().join(case);
        quantized(case, &out, |job| job.options.rotate = case == "awq");
        let folder = ModelFolder::open(&out).unwrap();
        assert!(folder.config.quantization.is_some(), "{case}");
        assert!(folder.weights.foreign().is_none(), "{case}");
        assert!(
            !folder
                .notices
                .iter()
                .any(|notice| notice.contains("quantized before")),
            "{case}: {:?}",
            folder.notices
        );
        let config = fs::read_to_string(out.join("config.json")).unwrap();
        assert!(
            !config.contains("gptq") && !out.join("quantize_config.json").exists(),
            "{case}"
        );
        let device = Arc::new(CpuDevice::new(1).unwrap());
        Model::load(device, &out, &LoadOptions::default()).unwrap();
    }
}

#[test]
fn linears_that_stay_floats_are_written_as_the_floats_they_mean() {
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        let out = dir.path().join(case);
        quantized(case, &out, |job| {
            job.options.schemes = vec!["qkv=float".parse().unwrap()]
        });
        let (original, stored) = (
            Weights::open(&fixture(case)).unwrap(),
            Weights::open(&out).unwrap(),
        );
        for name in ["q_proj", "k_proj", "v_proj"] {
            let name = format!("model.layers.0.self_attn.{name}.weight");
            assert_eq!(stored.raw(&name).unwrap(), original.raw(&name).unwrap(), "{case}");
        }
        assert!(ModelConfig::load(&out).is_ok());
    }
}
