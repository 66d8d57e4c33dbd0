//! A short, repeatable run of the fuzz entry points (fuzz/) on stable Rust: real files, damaged at random. For a
//! longer search guided by coverage: `cargo +nightly fuzz run checkpoint` (or config, tokenizer, tasks, journal, perf_model,
//! perf_set).

#[path = "../fuzz/entry_points.rs"]
mod entry_points;
#[path = "../fuzz/folders/mod.rs"]
mod folders;
mod synthetic;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use dualgrain_device::cases::Random;
use dualgrain_format::checkpoint::{FolderWriter, LinearLayout};
use dualgrain_format::{GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts};
use dualgrain_perf::{Dataset, Model, Row};
use dualgrain_testing::damage;
use flate2::read::DeflateDecoder;

/// Mutations tried for each seed file.
const ROUNDS: u64 = 400;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/engine/tests/fixtures")
}

/// All files called `name` under `folder`, so that every family's config and every small checkpoint is a seed.
fn seeds(folder: &Path, matches: &dyn Fn(&str) -> bool, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            seeds(&entry.path(), matches, found);
        } else if matches(&entry.file_name().to_string_lossy()) {
            found.push(fs::read(entry.path()).unwrap());
        }
    }
}

fn run(name: &str, matches: impl Fn(&str) -> bool, rounds: u64, entry: impl Fn(&[u8])) {
    let mut found = Vec::new();
    seeds(&fixtures(), &matches, &mut found);
    assert!(!found.is_empty(), "no seeds for {name}");
    for (index, seed) in found.iter().enumerate() {
        entry(seed);
        for round in 0..rounds {
            entry(&damage(&mut Random(round << 8 | index as u64), seed));
        }
    }
}

#[test]
fn damaged_checkpoints_are_refused_or_read_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    run(
        "checkpoint",
        |name| name == "model.safetensors",
        ROUNDS / 4,
        |data| {
            entry_points::checkpoint(folder.path(), data);
        },
    );
}

/// A checkpoint of quantized linears: 4-bit with and without bias and activation scale, 8-bit.
fn quantized_checkpoint() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let group_size = GroupSize::Along(32);
    let (n, k, groups) = (5, 70, 3);
    let w4 = |ta: Option<f32>| {
        let parts = QuantizedParts {
            q: (0..n * k / 2).map(|i| (i * 37 % 256) as u8).collect(),
            zero: [0x87, 0x09].repeat(n),
            s2: vec![9; n * groups],
            s1: vec![0.01; n],
            bias: ta.map(|_| vec![0.5; n]),
            ta,
        };
        LinearWeights::W4(QuantizedLinear::new((n, k), group_size, parts).unwrap())
    };
    let w8 = Int8Linear::new((n, k), vec![3; n * k], vec![0.1; n], None, None).unwrap();
    let linears = [
        ("a", w4(None)),
        ("b", w4(Some(0.1))),
        ("c", LinearWeights::W8(w8)),
    ];
    let mut writer = FolderWriter::create(&folder.path().join("model"), false).unwrap();
    let specs = linears
        .iter()
        .flat_map(|(name, linear)| LinearLayout::of(linear).specs(name));
    writer.start_tensors(specs.collect()).unwrap();
    for (name, linear) in &linears {
        writer.write_linear(name, linear).unwrap();
    }
    writer.commit().unwrap();
    fs::read(folder.path().join("model/model.safetensors")).unwrap()
}

#[test]
fn damaged_quantized_checkpoints_are_refused_or_read_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let seed = quantized_checkpoint();
    entry_points::checkpoint(folder.path(), &seed);
    for round in 0..20 * ROUNDS {
        entry_points::checkpoint(folder.path(), &damage(&mut Random(round), &seed));
    }
}

#[test]
fn damaged_configurations_never_panic() {
    run(
        "config",
        |name| name.starts_with("config"),
        ROUNDS,
        entry_points::config,
    );
}

#[test]
fn damaged_task_files_never_panic() {
    run(
        "tasks",
        |name| name.ends_with(".jsonl"),
        ROUNDS,
        entry_points::tasks,
    );
}

#[test]
fn damaged_tokenizers_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny/tokenizer.json");
    let seed = fs::read(path).unwrap();
    for round in 0..ROUNDS / 10 {
        entry_points::tokenizer(folder.path(), &damage(&mut Random(round), &seed));
    }
}

#[test]
fn damaged_journals_are_resumed_from_or_refused_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let whole = entry_points::whole_journal(folder.path());
    for (index, (_, contents)) in whole.iter().enumerate() {
        for round in 0..ROUNDS {
            let mut data = vec![index as u8];
            data.extend(damage(&mut Random(round << 8 | index as u64), contents));
            entry_points::journal(folder.path(), &whole, &data);
        }
    }
}

/// Bytes of a model file before its compressed contents.
const MODEL_FRAME: usize = 24;

/// The contents of a small model's file, with power: its header in JSON and its trees.
fn model_contents() -> Vec<u8> {
    let data = Dataset {
        manifest: synthetic::manifest(),
        rows: synthetic::rows(20)
            .into_iter()
            .filter(|row: &Row| row.kernel != "sgemm_tiled")
            .collect(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.dgm");
    Model::fit(&data).unwrap().write(&path).unwrap();
    let mut contents = Vec::new();
    let file = fs::read(path).unwrap();
    DeflateDecoder::new(&file[MODEL_FRAME..])
        .read_to_end(&mut contents)
        .unwrap();
    contents
}

#[test]
fn damaged_fitted_models_are_refused_or_predict_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let seed = model_contents();
    fs::write(folder.path().join("whole.dgm"), entry_points::model_file(&seed)).unwrap();
    Model::read(&folder.path().join("whole.dgm")).expect("packed as a fit packs it");
    for round in 0..ROUNDS {
        entry_points::perf_model(folder.path(), &damage(&mut Random(round), &seed));
    }
}

#[test]
fn damaged_measured_sets_are_refused_or_read_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    synthetic::write(folder.path(), 1);
    let manifest = fs::read(folder.path().join("manifest.json")).unwrap();
    let rows = fs::read_to_string(folder.path().join("rows.csv")).unwrap();
    let first: Vec<&str> = rows.split_inclusive('\n').take(12).collect();
    let seed = [manifest, b"\0".to_vec(), first.concat().into_bytes()].concat();
    for round in 0..4 * ROUNDS {
        entry_points::perf_set(folder.path(), &damage(&mut Random(round), &seed));
    }
}

/// Folders damaged for each kind; `examples/fuzz_folders` damages as many as wanted.
const FOLDERS: u64 = 1_000;

#[test]
fn damaged_folders_are_opened_or_refused_with_a_file_s_name_but_never_panic() {
    for kind in [folders::Kind::Model, folders::Kind::Measurements] {
        let (seeds, folder) = (folders::seeds(kind), tempfile::tempdir().unwrap());
        let mut place = folders::Place::new(folder.path());
        let mut num_refused = 0;
        for number in 0..FOLDERS {
            let folders::Case {
                outcome,
                time,
                damage,
            } = place.run(&seeds, number);
            match outcome {
                folders::Outcome::Taken => {}
                folders::Outcome::Refused(_) => num_refused += 1,
                other => panic!("case {number} ({damage}), after {time:?}: {other:?}"),
            }
        }
        assert!(
            num_refused > FOLDERS / 2,
            "only {num_refused} of {FOLDERS} are refused"
        );
    }
}
