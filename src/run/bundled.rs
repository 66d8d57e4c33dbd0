//! The model and the texts that travel inside the binary.

use std::borrow::Cow;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dualgrain::format::checkpoint::FolderWriter;
pub use dualgrain::{SAMPLE_CALIBRATION, SAMPLE_EVALUATION};
use flate2::read::GzDecoder;

/// The small files of the bundled model.
const FILES: [(&str, &[u8]); 3] = [
    (
        "config.json",
        include_bytes!("../../models/llama-tiny/config.json"),
    ),
    (
        "generation_config.json",
        include_bytes!("../../models/llama-tiny/generation_config.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../../models/llama-tiny/tokenizer_config.json"),
    ),
];
/// The others, packed by build.rs, and how many planes their bytes are packed in.
const PACKED: [(&str, usize, &[u8]); 2] = [
    (
        "model.safetensors",
        2,
        include_bytes!(concat!(env!("OUT_DIR"), "/model.safetensors.gz")),
    ),
    (
        "tokenizer.json",
        1,
        include_bytes!(concat!(env!("OUT_DIR"), "/tokenizer.json.gz")),
    ),
];

/// Writes the bundled model into `out/llama-tiny`, unless an earlier quickstart did. A folder with other contents is
/// not touched.
pub fn unpack(out: &Path) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let dir = out.join("llama-tiny");
    let files = files()?;
    let unchanged =
        |(name, bytes): &(&str, Cow<'_, [u8]>)| fs::read(dir.join(name)).is_ok_and(|found| found == **bytes);
    if files.iter().all(unchanged) {
        return Ok(dir);
    }
    let mut writer = FolderWriter::create(&dir, false)?;
    for (name, bytes) in &files {
        writer.write_file(name, bytes)?;
    }
    writer.commit()?;
    Ok(dir)
}

/// A file's name and what stands in it.
type File = (&'static str, Cow<'static, [u8]>);

/// Every file of the model.
fn files() -> Result<Vec<File>> {
    let mut files: Vec<_> = FILES
        .into_iter()
        .map(|(name, bytes)| (name, Cow::Borrowed(bytes)))
        .collect();
    for (name, planes, packed) in PACKED {
        let mut bytes = Vec::new();
        GzDecoder::new(packed)
            .read_to_end(&mut bytes)
            .with_context(|| format!("unpacking {name} of the bundled model"))?;
        files.push((name, interleaved(&bytes, planes).into()));
    }
    Ok(files)
}

/// The bytes of a file whose every first byte of `planes` stands before every second one, and so on.
fn interleaved(bytes: &[u8], planes: usize) -> Vec<u8> {
    let mut file = vec![0; bytes.len()];
    let places = (0..planes).flat_map(|first| (first..bytes.len()).step_by(planes));
    places.zip(bytes).for_each(|(place, &byte)| file[place] = byte);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_inside_is_the_model_of_the_repository() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny");
        for (name, bytes) in files().unwrap() {
            assert!(fs::read(folder.join(name)).unwrap() == *bytes, "{name}");
        }
    }

    #[test]
    fn planes_of_an_odd_length_come_together() {
        assert_eq!(interleaved(&[1, 3, 5, 2, 4], 2), [1, 2, 3, 4, 5]);
        assert!(interleaved(&[], 2).is_empty());
    }
}
