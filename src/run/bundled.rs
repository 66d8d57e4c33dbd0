//! The model and the texts that travel inside the binary.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dualgrain::format::checkpoint::FolderWriter;
pub use dualgrain::{SAMPLE_CALIBRATION, SAMPLE_EVALUATION};
use flate2::read::GzDecoder;

/// The bundled model, file by file; the tokenizer comes packed.
const MODEL: [(&str, &[u8]); 4] = [
    (
        "config.json",
        include_bytes!("../../models/llama-tiny/config.json"),
    ),
    (
        "generation_config.json",
        include_bytes!("../../models/llama-tiny/generation_config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../../models/llama-tiny/model.safetensors"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../../models/llama-tiny/tokenizer_config.json"),
    ),
];
const TOKENIZER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tokenizer.json.gz"));

/// Writes the bundled model into `out/llama-tiny`, unless an earlier quickstart did. A folder with other contents is
/// not touched.
pub fn unpack(out: &Path) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let dir = out.join("llama-tiny");
    let mut tokenizer = Vec::new();
    GzDecoder::new(TOKENIZER)
        .read_to_end(&mut tokenizer)
        .context("unpacking the bundled tokenizer")?;
    let files = || MODEL.into_iter().chain([("tokenizer.json", &tokenizer[..])]);
    let unchanged = |(name, bytes): (&str, &[u8])| fs::read(dir.join(name)).is_ok_and(|found| found == bytes);
    if files().all(unchanged) {
        return Ok(dir);
    }
    let mut writer = FolderWriter::create(&dir, false)?;
    for (name, bytes) in files() {
        writer.write_file(name, bytes)?;
    }
    writer.commit()?;
    Ok(dir)
}
