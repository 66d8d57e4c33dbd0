//! Mixtures of experts: a dense model whose feed-forward is copied into experts is the same model, and what is quantized of it is as good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::Statistics;
use dualgrain_engine::evaluate::{Windows, perplexity};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{
    EngineError, ExpertProjections, LinearId, LoadOptions, Model, ModelConfig, Projection, RawTensor, Role,
    Weights,
};
use dualgrain_format::checkpoint::{Dtype, FolderWriter, TensorSpec, f32_bytes};
use dualgrain_format::{ActivationScheme, FloatLinear, FloatValues, Int8Linear, LinearWeights};
use dualgrain_quant::{Monitor, QuantJob, QuantReport, Search, plan};
use dualgrain_threads::Pool;

const LAYERS: usize = 2;
const EXPERTS: usize = 6;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny")
}

fn tokens(text: &str) -> Vec<u32> {
    let config = ModelConfig::load(&tiny()).unwrap();
    let tokenizer = Tokenizer::load(&tiny(), config.vocab_size).unwrap();
    let text = std::fs::read_to_string(tiny().join(text)).unwrap();
    tokenizer.encode(&text, true).unwrap()
}

/// The first blocks of the bundled model.
fn dense(dir: &Path) {
    write((dir, LAYERS), "llama", |_, name, tensor, writer| {
        writer(name.to_owned(), tensor)
    });
}

/// The same, each feed-forward copied into experts: whatever a router chooses, the weights of two add up to one. The last expert's logit
/// is the mean of the others', so that few tokens go to it.
fn mixture(dir: &Path) {
    mixture_of(dir, LAYERS);
}

fn mixture_of(dir: &Path, layers: usize) {
    write((dir, layers), "mixtral", |config, name, tensor, writer| {
        let Some((block, part)) = name.split_once(".mlp.") else {
            return writer(name.to_owned(), tensor);
        };
        let part = match part {
            "gate_proj.weight" => "w1",
            "up_proj.weight" => "w3",
            _ => "w2",
        };
        for expert in 0..EXPERTS {
            let name = format!("{block}.block_sparse_moe.experts.{expert}.{part}.weight");
            writer(name, (tensor.0, tensor.1, tensor.2.clone()));
        }
        if part == "w1" {
            let router = router(config.hidden_size, block.len());
            let shape = [EXPERTS, config.hidden_size];
            writer(
                format!("{block}.block_sparse_moe.gate.weight"),
                (Dtype::F32, &shape, f32_bytes(&router).into()),
            );
        }
    });
}

fn router(hidden: usize, seed: usize) -> Vec<f32> {
    let mut random = dualgrain_device::cases::Random(seed as u64);
    let mut rows = random.floats((EXPERTS - 1) * hidden);
    let mean = |column: usize| {
        let column = rows.chunks_exact(hidden).map(|row| row[column]);
        column.sum::<f32>() / (EXPERTS - 1) as f32
    };
    let last: Vec<f32> = (0..hidden).map(mean).collect();
    rows.extend(last);
    rows
}

/// Writes what `each` makes of every tensor of the first blocks.
fn write(
    (dir, layers): (&Path, usize),
    model_type: &str,
    each: impl Fn(&ModelConfig, &str, RawTensor<'_>, &mut dyn FnMut(String, RawTensor<'_>)),
) {
    let (config, weights) = (
        ModelConfig::load(&tiny()).unwrap(),
        Weights::open(&tiny()).unwrap(),
    );
    let mut tensors: Vec<(TensorSpec, Vec<u8>)> = Vec::new();
    for name in weights.names() {
        let is_of_block = |layer: usize| name.contains(&format!("layers.{layer}."));
        if name.contains("layers.") && !(0..layers).any(is_of_block) {
            continue;
        }
        each(&config, &name, weights.raw(&name).unwrap(), &mut |name,
                                                                (
            dtype,
            shape,
            bytes,
        )| {
            tensors.push((
                TensorSpec {
                    name,
                    dtype,
                    shape: shape.to_vec(),
                },
                bytes.into_owned(),
            ));
        });
    }
    let text = std::fs::read_to_string(tiny().join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["model_type"] = model_type.into();
    json["num_hidden_layers"] = layers.into();
    if model_type == "mixtral" {
        json["num_local_experts"] = EXPERTS.into();
    }
    json.as_object_mut().unwrap().remove("architectures");
    let mut writer = FolderWriter::create(dir, true).unwrap();
    writer.copy_model_files(&tiny()).unwrap();
    writer
        .write_file("config.json", json.to_string().as_bytes())
        .unwrap();
    writer
        .start_tensors(tensors.iter().map(|(spec, _)| spec.clone()).collect())
        .unwrap();
    for (spec, bytes) in &tensors {
        writer.write_tensor(&spec.name, bytes).unwrap();
    }
    writer.commit().unwrap();
}

fn loss(dir: &Path) -> f64 {
    let device = Arc::new(CpuDevice::new(2).unwrap());
    let model = Arc::new(Model::load(device, dir, &LoadOptions::default()).unwrap());
    let windows = Windows::from_tokens("sample", tokens("sample_eval.txt"), 256, Some(6)).unwrap();
    perplexity(&model, &windows, &mut |_, _| ()).unwrap().mean_nll
}

fn job(model: &Path, out: &Path, num_windows: usize) -> QuantJob {
    let mut job = QuantJob::new(model.to_path_buf(), out);
    job.options.num_windows = num_windows;
    job.options.window_tokens = 128;
    job
}

fn quantize<D: Statistics>(job: &QuantJob, device: &D, threads: usize) -> QuantReport {
    let tokens = tokens("sample_calib.txt");
    let monitor = Monitor::silent();
    dualgrain_quant::quantize(job, device, &Pool::new(threads), &tokens, monitor)
        .unwrap()
        .report
}

#[test]
fn a_feed_forward_copied_into_experts_stays_the_model_and_is_quantized_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    dense(&path("dense"));
    mixture(&path("mixture"));
    let (of_dense, of_mixture) = (loss(&path("dense")), loss(&path("mixture")));
    assert!(
        (of_dense - of_mixture).abs() < 1e-5,
        "{of_dense} and {of_mixture}"
    );
    let device = CpuDevice::new(2).unwrap();
    let mut added = Vec::new();
    for name in ["dense", "mixture"] {
        let out = path(&format!("{name}-w4"));
        let report = quantize(&job(&path(name), &out, 16), &device, 2);
        added.push(loss(&out) - of_dense);
        let of_expert = report
            .linears
            .iter()
            .filter(|linear| linear.expert == Some(0))
            .count();
        assert_eq!(of_expert, if name == "dense" { 0 } else { 2 * LAYERS });
    }
    println!(
        "quantizing adds {} nats to the dense model, {} to the mixture",
        added[0], added[1]
    );
    assert!(added[1] < 1.5 * added[0].max(0.005), "{added:?}");
}

#[test]
fn an_expert_that_saw_few_tokens_is_named_and_takes_what_errs_less() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("mixture"), dir.path().join("out"));
    mixture(&model);
    let report = quantize(&job(&model, &out, 4), &CpuDevice::new(2).unwrap(), 2);
    let config = ModelConfig::load(&model).unwrap();
    let mut num_few = 0;
    for linear in report.linears.iter().filter(|linear| linear.expert.is_some()) {
        let few = linear.num_tokens.unwrap() < linear.k;
        assert_eq!(linear.took.is_some(), few, "{linear:?}");
        num_few += usize::from(few && linear.expert == Some(EXPERTS - 1));
    }
    assert_eq!(num_few, 2 * LAYERS, "the expert that few tokens go to");
    let page = std::fs::read_to_string(out.join("quantization_report.html")).unwrap();
    assert!(page.contains("Experts that saw few tokens") && page.contains("of 6 experts"));
    assert_eq!(config.mixture.unwrap().num_experts, EXPERTS);
    // Who looks at no inputs takes nobody's.
    let mut nearest = job(&model, &dir.path().join("nearest"), 4);
    nearest.options.search = Search::Rtn;
    let report = quantize(&nearest, &CpuDevice::new(2).unwrap(), 2);
    assert!(report.linears.iter().all(|linear| linear.took.is_none()));
}

#[test]
fn threads_change_no_bit_of_a_mixture() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("mixture");
    mixture_of(&model, 1);
    let tensors = |name: &str, threads: usize| {
        let out = dir.path().join(name);
        let mut job = job(&model, &out, 2);
        job.options.search = Search::TwoPhase;
        job.options.window_tokens = 48;
        quantize(&job, &CpuDevice::new(threads).unwrap(), threads);
        std::fs::read(out.join("model.safetensors")).unwrap()
    };
    assert!(tensors("one", 1) == tensors("two", 2));
}

#[test]
fn a_plan_counts_experts_and_what_they_lack_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("mixture");
    mixture(&model);
    let config = ModelConfig::load(&model).unwrap();
    let device = CpuDevice::new(1).unwrap();
    let job = job(&model, &dir.path().join("out"), 4);
    let planned = plan(&device, &config, &job, None).unwrap();
    let report = quantize(&job, &device, 1);
    let written = std::fs::metadata(job.out_dir.join("model.safetensors"))
        .unwrap()
        .len();
    let ratio = planned.output_bytes as f64 / written as f64;
    assert!(
        (0.97..1.03).contains(&ratio),
        "{} planned, {written} written",
        planned.output_bytes
    );
    assert_eq!(report.linears.len(), LAYERS * (2 + 2 * EXPERTS));

    let refused = |change: &dyn Fn(&mut QuantJob)| {
        let mut job = job.clone();
        change(&mut job);
        plan(&device, &config, &job, None).unwrap_err().to_string()
    };
    for (option, error) in [
        ("--bits", refused(&|job| job.options.bits = Some(4.5))),
        (
            "--activations static",
            refused(&|job| job.options.activations = ActivationScheme::Static),
        ),
    ] {
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn experts_in_two_kinds_of_weights_are_refused_in_words() {
    let device = CpuDevice::new(1).unwrap();
    let floats = || FloatLinear::new(16, 32, FloatValues::F32(vec![0.5; 512]), None).unwrap();
    let w8 = Int8Linear::new((16, 32), vec![1; 512], vec![0.5; 16], None, None).unwrap();
    let weights = [LinearWeights::Float(floats()), LinearWeights::W8(w8)];
    let projections = weights.map(|weights| Projection::new(&device, weights).unwrap());
    let id = LinearId {
        expert: Some(0),
        ..LinearId::dense(3, Role::Down)
    };
    let error = ExpertProjections::new(&device, id, projections.into())
        .err()
        .unwrap();
    assert!(matches!(error, EngineError::UnlikeExperts { .. }), "{error}");
    assert!(error.to_string().contains("block 3: down of expert 0"), "{error}");
}
