//! The model and the texts that travel inside the binary.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dualgrain::format::checkpoint::FolderWriter;
pub use dualgrain::{SAMPLE_CALIBRATION, SAMPLE_EVALUATION};

/// The bundled model, file by file.
const MODEL: [(&str, &[u8]); 5] = [
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
        "tokenizer.json",
        include_bytes!("../../models/llama-tiny/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../../models/llama-tiny/tokenizer_config.json"),
    ),
];

/// Writes the bundled model into `out/llama-tiny`, unless an earlier quickstart did. A folder with other contents is
/// not touched.
pub fn unpack(out: &Path) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let dir = out.join("llama-tiny");
    let unchanged =
        |(name, bytes): &(&str, &[u8])| fs::read(dir.join(name)).is_ok_and(|found| found == *bytes);
    if MODEL.iter().all(unchanged) {
        return Ok(dir);
    }
    let mut writer = FolderWriter::create(&dir, false)?;
    for (name, bytes) in MODEL {
        writer.write_file(name, bytes)?;
    }
    writer.commit()?;
    Ok(dir)
}
