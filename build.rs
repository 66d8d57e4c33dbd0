//! Tells the program which revision it is built from, for the headers of records, and packs what travels inside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::read::GzEncoder;

/// A quarter of its size when it is packed; the weights stay as large as they are.
const TOKENIZER: &str = "models/llama-tiny/tokenizer.json";

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
    println!("cargo:rerun-if-changed={TOKENIZER}");
    pack_tokenizer();
    let named = std::env::var("DUALGRAIN_REVISION").ok();
    let revision = named.or_else(described).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=DUALGRAIN_REVISION={revision}");
}

fn described() -> Option<String> {
    let arguments = ["describe", "--always", "--dirty", "--tags", "--abbrev=10"];
    let output = Command::new("git").args(arguments).output().ok()?;
    let words = String::from_utf8(output.stdout).ok()?;
    let words = words.trim();
    (output.status.success() && !words.is_empty()).then(|| words.to_owned())
}

fn pack_tokenizer() {
    let json = fs::File::open(TOKENIZER).expect("the bundled model's tokenizer");
    let folder = std::env::var("OUT_DIR").expect("cargo's folder for what is built");
    let packed = fs::File::create(Path::new(&folder).join("tokenizer.json.gz"));
    let mut packed = packed.expect("a file in cargo's folder");
    std::io::copy(&mut GzEncoder::new(json, Compression::best()), &mut packed).expect("room for it");
}
