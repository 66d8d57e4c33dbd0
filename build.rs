//! Tells the program which revision it is built from, for the headers of records.

use std::process::Command;

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
