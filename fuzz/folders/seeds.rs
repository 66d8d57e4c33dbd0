//! Sound folders, small enough to be damaged many times a second.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dualgrain_perf::{Dataset, Model, Row};
use dualgrain_quant::{QuantOptions, Search};
use serde_json::{Value, json};

use super::entries::Kind;
use crate::synthetic;

/// Files by their names in a folder.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A sound folder.
pub struct Seed {
    /// What it is called in reports.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Its files.
    pub files: Files,
}

/// Families that fixtures exist for, and one whose tensors lie in shards.
const MODELS: [&str; 6] = [
    "llama2",
    "llama3-sharded",
    "mistral",
    "qwen3",
    "opt",
    "bloom-6heads",
];

/// Folders that other programs quantized.
const FOREIGN: [&str; 6] = [
    "gptq-act-order",
    "gptq-older",
    "awq",
    "compressed-tensors",
    "fp8",
    "mxfp4",
];

/// Model folders of several families, original and quantized, by this program and others.
///
/// # Panics
/// If a fixture is not there.
pub fn seeds(kind: Kind) -> Vec<Seed> {
    match kind {
        Kind::Model => {
            let models = MODELS.map(original).into_iter();
            models.chain(FOREIGN.map(foreign)).chain([quantized()]).collect()
        }
        Kind::Measurements => vec![measurements()],
    }
}

fn original(name: &str) -> Seed {
    fixture("families", name)
}

fn foreign(name: &str) -> Seed {
    fixture("foreign", name)
}

fn fixture(kind: &str, name: &str) -> Seed {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/engine/tests/fixtures");
    let mut files = read_folder(&fixtures.join(kind).join(name));
    for other in ["golden.safetensors", "config_v4.json", "expected.json"] {
        files.remove(other);
    }
    files.extend(text_files());
    Seed {
        name: name.to_owned(),
        kind: Kind::Model,
        files,
    }
}

/// The first of them, quantized without a search.
fn quantized() -> Seed {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    let files = original("llama2").files;
    files.iter().for_each(|(name, bytes)| write(&model, name, bytes));
    let options = QuantOptions {
        search: Search::Rtn,
        ..QuantOptions::default()
    };
    let quantizer = dualgrain::Quantizer::new(&model, &out).calibration("the ship at sea ".repeat(200));
    let quantizer = quantizer.options(options).windows(2, 32).threads(1);
    quantizer.run().expect("a sound model is quantized");
    Seed {
        name: "quantized".to_owned(),
        kind: Kind::Model,
        files: read_folder(&out),
    }
}

fn measurements() -> Seed {
    let folder = tempfile::tempdir().expect("a temporary folder");
    synthetic::write(folder.path(), 1);
    let rows = fs::read_to_string(folder.path().join("rows.csv")).expect("a measured set");
    let first: Vec<&str> = rows.split_inclusive('\n').take(12).collect();
    let is_kept = |row: &Row| row.kernel != "sgemm_tiled";
    let data = Dataset {
        manifest: synthetic::manifest(),
        rows: synthetic::rows(20).into_iter().filter(is_kept).collect(),
    };
    let path = folder.path().join("fitted.dgm");
    Model::fit(&data)
        .expect("a fit")
        .write(&path)
        .expect("a temporary folder");
    let mut files = read_folder(folder.path());
    files.insert("rows.csv".to_owned(), first.concat().into_bytes());
    Seed {
        name: "measured set".to_owned(),
        kind: Kind::Measurements,
        files,
    }
}

fn read_folder(folder: &Path) -> Files {
    let entries = fs::read_dir(folder)
        .expect("a folder of this repository")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            path.is_file().then(|| (name, fs::read(&path).expect("a file")))
        });
    entries.flatten().collect()
}

/// A byte-level tokenizer of single characters, a template and what else a folder has.
fn text_files() -> Files {
    let template = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}{{ eos_token }}\
        {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}{{ '' if tools is none else tools | tojson }}\n";
    let of_tools = "{%- for tool in tools %}{{ tool.function.name }}{% endfor %}{{ messages[0].content }}\n";
    let json = [
        ("tokenizer.json", tokenizer()),
        (
            "tokenizer_config.json",
            json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false},
            "model_max_length": 256, "chat_template": [{"name": "default", "template": template}]}),
        ),
        (
            "special_tokens_map.json",
            json!({"bos_token": "<s>", "eos_token": "</s>"}),
        ),
        (
            "generation_config.json",
            json!({"eos_token_id": [2, 1], "do_sample": true, "temperature": 0.7, "top_p": 0.9,
            "top_k": 20, "repetition_penalty": 1.05}),
        ),
    ];
    let texts = [
        ("chat_template.jinja", template),
        ("additional_chat_templates/tool_use.jinja", of_tools),
    ];
    let json = json.into_iter().map(|(name, value)| (name, value.to_string()));
    let all = json.chain(texts.map(|(name, text)| (name, text.to_owned())));
    all.map(|(name, text)| (name.to_owned(), text.into_bytes()))
        .collect()
}

fn tokenizer() -> Value {
    let special = ["<unk>", "<s>", "</s>"];
    let letters = ('a'..='z').chain("ĠĊ.,:?120".chars()).map(String::from);
    let vocab = special
        .iter()
        .map(ToString::to_string)
        .chain(letters)
        .chain(["sh".to_owned(), "ip".to_owned()]);
    let vocab: serde_json::Map<String, Value> =
        vocab.zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added = special.iter().zip(0..).map(|(token, id)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": level, "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": ["s h", "i p"]}})
}

/// Writes a file of a folder, and the folders above it.
///
/// # Panics
/// If that fails.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap_or(dir)).expect("a temporary folder");
    fs::write(path, bytes).expect("writing to a temporary folder");
}
