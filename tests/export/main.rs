//! `export`: what it writes says the same as the quantized folder, by our own engine and by programs of others; what it can not write it
//! refuses in words.

#[path = "../drawn/mod.rs"]
mod drawn;
mod formats;
mod llama_cpp;
mod mixtures;
mod models;
mod packages;
#[path = "../program/mod.rs"]
mod program;
mod refusals;

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
