//! `export`: what it writes says the same as the quantized folder, by our own engine and by programs of others; what it can not write it
//! refuses in words.

mod formats;
#[path = "../../crates/engine/tests/golden/mod.rs"]
mod golden;
mod llama_cpp;
mod gguf_mixtures;
mod models;
mod packages;
#[path = "../program/mod.rs"]
mod program;
mod refusals;
#[path = "../../crates/engine/tests/configs/variants.rs"]
mod variants;

use std::path::Path;

use program::{json, text};
use serde_json::Value;

/// Exports `folder` by the command and gives back what it printed.
fn run(folder: &Path, format: &str, out: &Path) -> Value {
    json(&[
        "export",
        text(folder),
        "--format",
        format,
        "--out",
        text(out),
        "--json",
    ])
}
