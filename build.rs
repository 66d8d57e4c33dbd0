//! Tells the program which revision it is built from, for the headers of records, and packs what travels inside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::read::GzEncoder;

/// Files of the bundled model that are smaller when they are packed, and the bytes of their numbers. The tokenizer has a quarter of its size. The weights, of
/// two bytes each, have 0.70 of it where all first bytes stand before all second ones, which hold the exponents, and 0.80 as they lie.
const PACKED: [(&str, usize); 2] = [("tokenizer.json", 1), ("model.safetensors", 2)];

fn main() {
    println!("cargo:rerun-if-env-changed=DUALGRAIN_REVISION");
    // Both change with every commit and checkout. An edit since then does not ask again, so `-dirty` may be missing: records
    // are made of committed sources.
    for file in [".git/HEAD", ".git/logs/HEAD"] {
        if std::path::Path::new(file).exists() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
    fold_equal_functions();
    PACKED.into_iter().for_each(|(name, width)| pack(name, width));
    let named = std::env::var("DUALGRAIN_REVISION").ok();
    let revision = named.or_else(described).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=DUALGRAIN_REVISION={revision}");
}

/// Equal functions are kept once: generic code has many, half a megabyte of them. Only the linker that Rust brings for this target knows how.
fn fold_equal_functions() {
    let target = std::env::var("TARGET").unwrap_or_default();
    if target == "x86_64-unknown-linux-gnu" {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}

fn described() -> Option<String> {
    let arguments = ["describe", "--always", "--dirty", "--tags", "--abbrev=10"];
    let output = Command::new("git").args(arguments).output().ok()?;
    let words = String::from_utf8(output.stdout).ok()?;
    let words = words.trim();
    (output.status.success() && !words.is_empty()).then(|| words.to_owned())
}

fn pack(name: &str, width: usize) {
    let path = format!("models/llama-tiny/{name}");
    println!("cargo:rerun-if-changed={path}");
    let bytes = fs::read(path).expect("a file of the bundled model");
    let planes: Vec<u8> = (0..width)
        .flat_map(|first| bytes.iter().skip(first).step_by(width).copied())
        .collect();
    let folder = std::env::var("OUT_DIR").expect("cargo's folder for what is built");
    let packed = fs::File::create(Path::new(&folder).join(format!("{name}.gz")));
    let mut packed = packed.expect("a file in cargo's folder");
    std::io::copy(&mut GzEncoder::new(&planes[..], Compression::best()), &mut packed).expect("room for it");
}
