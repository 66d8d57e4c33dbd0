//! Tensors: heads stored twice, names of wrappers, leftovers, shards.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{dualgrain, failure, stderr, text};
use crate::{assert_refused, assert_taken, folder};

/// A tensor as a safetensors file holds it: name, type, shape, bytes.
pub type Stored = (String, String, Vec<usize>, Vec<u8>);

pub fn tensors(folder: &Path) -> Vec<Stored> {
    let file = fs::read(folder.join("model.safetensors")).unwrap();
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + len]).unwrap();
    let entries = header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__");
    let tensor = |(name, entry): (&String, &Value)| {
        let at = |i: usize| 8 + len + entry["data_offsets"][i].as_u64().unwrap() as usize;
        let shape = entry["shape"].as_array().unwrap().iter();
        (
            name.clone(),
            entry["dtype"].as_str().unwrap().to_owned(),
            shape.map(|n| n.as_u64().unwrap() as usize).collect(),
            file[at(0)..at(1)].to_vec(),
        )
    };
    entries.map(tensor).collect()
}

pub fn save(path: &Path, tensors: &[Stored]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let end = data.len() + bytes.len();
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]});
        header.insert(name.clone(), entry);
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(path, file).unwrap();
}

fn rename(folder: &Path, name: impl Fn(&str) -> String) {
    let renamed = tensors(folder).into_iter();
    let renamed: Vec<_> = renamed.map(|(old, a, b, c)| (name(&old), a, b, c)).collect();
    save(&folder.join("model.safetensors"), &renamed);
}

const EMBEDDING: &str = "model.embed_tokens.weight";

/// bf16 to f32, exactly.
pub fn widened(bytes: &[u8]) -> Vec<u8> {
    bytes
        .chunks_exact(2)
        .flat_map(|pair| [0, 0, pair[0], pair[1]])
        .collect()
}

#[test]
fn a_tied_head_may_be_stored_in_any_float_type() {
    for dtype in ["BF16", "F32"] {
        let model = folder(&format!("tied_{dtype}"), |folder| {
            let mut all = tensors(folder);
            let (_, _, shape, bytes) = all.iter().find(|tensor| tensor.0 == EMBEDDING).unwrap().clone();
            let bytes = if dtype == "F32" { widened(&bytes) } else { bytes };
            all.push(("lm_head.weight".into(), dtype.into(), shape, bytes));
            save(&folder.join("model.safetensors"), &all);
        });
        assert_taken(&model);
        let out = model.with_file_name("quantized");
        let small = [
            "--search",
            "rtn",
            "--windows",
            "1",
            "--context",
            "64",
            "--lm-head",
            "float",
        ];
        let arguments = [&["quantize", text(&model), "--out", text(&out)][..], &small].concat();
        let output = dualgrain(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(
            !tensors(&out).iter().any(|tensor| tensor.0 == "lm_head.weight"),
            "the copy stays behind"
        );
    }
    let other = folder("tied_other", |folder| {
        let mut all = tensors(folder);
        let (_, _, shape, mut bytes) = all.iter().find(|tensor| tensor.0 == EMBEDDING).unwrap().clone();
        bytes[1] ^= 1;
        all.push(("lm_head.weight".into(), "BF16".into(), shape, bytes));
        save(&folder.join("model.safetensors"), &all);
    });
    assert_refused(&other, &["lm_head.weight", "tie_word_embeddings"]);
}

#[test]
fn names_of_wrappers_and_leftovers_are_taken() {
    for (case, before) in [
        ("compiled", "_orig_mod."),
        ("parallel", "module."),
        ("adapter", "base_model.model."),
    ] {
        let model = folder(case, |folder| rename(folder, |name| format!("{before}{name}")));
        assert_taken(&model);
    }
    let model = folder("leftovers", |folder| {
        let mut all = tensors(folder);
        for name in [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "v_head.summary.weight",
            "model.layers.1.self_attn.k_scale",
        ] {
            all.push((name.into(), "F32".into(), vec![1], vec![0; 4]));
        }
        save(&folder.join("model.safetensors"), &all);
    });
    let said = assert_taken(&model);
    assert!(
        said.contains("inv_freq") && said.contains("v_head") && said.contains("k_scale"),
        "{said}"
    );
    assert_eq!(said.matches("left out").count(), 1, "{said}");
    let unmerged = folder("unmerged", |folder| {
        rename(folder, |name| {
            name.replace("q_proj.weight", "q_proj.base_layer.weight")
        });
    });
    assert_refused(&unmerged, &["q_proj.weight", "merge"]);
    let unknown = folder("unknown", |folder| {
        let mut all = tensors(folder);
        all.push((
            "model.layers.0.mlp.router.weight".into(),
            "F32".into(),
            vec![1],
            vec![0; 4],
        ));
        save(&folder.join("model.safetensors"), &all);
    });
    assert_refused(&unknown, &["router"]);
}

/// Cuts the weights into two files.
fn cut(folder: &Path) -> [Vec<Stored>; 2] {
    let mut all = tensors(folder);
    let rest = all.split_off(all.len() / 2);
    save(&folder.join("model-00001-of-00002.safetensors"), &all);
    save(&folder.join("model-00002-of-00002.safetensors"), &rest);
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    [all, rest]
}

fn write_index(folder: &Path, parts: &[Vec<Stored>; 2], more: &[(&str, &str)]) {
    let of_part = |(i, part): (usize, &Vec<Stored>)| {
        let file = format!("model-0000{}-of-00002.safetensors", i + 1);
        part.iter()
            .map(|tensor| (tensor.0.clone(), json!(file)))
            .collect::<Vec<_>>()
    };
    let mut map: serde_json::Map<String, Value> = parts.iter().enumerate().flat_map(of_part).collect();
    map.extend(more.iter().map(|(name, file)| ((*name).to_owned(), json!(file))));
    let index = json!({"weight_map": map}).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

#[test]
fn shards_need_no_index_and_an_index_may_list_too_much() {
    assert_taken(&folder("no_index", |folder| drop(cut(folder))));
    let too_much = folder("index_lists_more", |folder| {
        let parts = cut(folder);
        let more = [
            ("lm_head.weight", "model-00002-of-00002.safetensors"),
            (
                "model.layers.0.self_attn.rotary_emb.inv_freq",
                "model-00003-of-00002.safetensors",
            ),
        ];
        write_index(folder, &parts, &more);
    });
    let said = assert_taken(&too_much);
    assert!(
        said.contains("index.json: lists 2 tensors that are not there"),
        "{said}"
    );
    let half = folder("shard_lost", |folder| {
        write_index(folder, &cut(folder), &[]);
        fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    });
    assert_refused(&half, &["model-00002-of-00002.safetensors", "not there"]);
    let lost = folder("shard_lost_no_index", |folder| {
        cut(folder);
        fs::remove_file(folder.join("model-00001-of-00002.safetensors")).unwrap();
    });
    assert!(failure(&["generate", text(&lost), "x"]).contains("number 1 is missing"));
}

/// Multiplies a bf16 tensor by a power of two, exactly.
fn scaled(bytes: &[u8], exponents: i32) -> Vec<u8> {
    let scaled = bytes.chunks_exact(2).flat_map(|pair| {
        let bits = u16::from_le_bytes([pair[0], pair[1]]);
        let exponent = i32::from(bits >> 7 & 0xff);
        // Zero stays zero.
        let scaled = if exponent == 0 {
            0
        } else {
            (exponent + exponents) as u16
        };
        (bits & 0x807f | scaled << 7).to_le_bytes()
    });
    scaled.collect()
}

#[test]
fn values_that_a_half_precision_cache_cannot_hold_are_refused_with_one_that_can() {
    for exponents in [20, -30] {
        let folder = folder(&format!("cache-{exponents}"), |_| {});
        let mut tensors = tensors(&folder);
        // The model computes the same function: what values gain, the projection behind attention loses.
        for (name, _, _, bytes) in &mut tensors {
            match name.as_str() {
                "model.layers.1.self_attn.v_proj.weight" => *bytes = scaled(bytes, exponents),
                "model.layers.1.self_attn.o_proj.weight" => *bytes = scaled(bytes, -exponents),
                _ => {}
            }
        }
        save(&folder.join("model.safetensors"), &tensors);
        let run = |cache: &str| {
            let out = folder.with_file_name(format!("out-{cache}"));
            let options = ["--method", "rtn", "--windows", "1", "--device", "cpu"];
            let arguments = [
                &["quantize", text(&folder), "--out", text(&out), "--kv", cache],
                &options[..],
            ]
            .concat();
            (dualgrain(&arguments), arguments.join(" "))
        };
        let (output, told) = run("f16");
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{told}: {message}");
        for words in ["block 1", "values", "the cache f16 holds", "--kv int8"] {
            assert!(message.contains(words), "{told}: {message}");
        }
        for cache in ["int8", "int8-static"] {
            let (output, told) = run(cache);
            assert_eq!(output.status.code(), Some(0), "{told}: {}", stderr(&output));
        }
    }
}
