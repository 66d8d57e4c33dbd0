//! What a run was asked to do, as a journal keeps it: a run goes on only from a journal of its own.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

use dualgrain_format::checkpoint::{CheckpointError, FOREIGN_CONFIGS};
use serde::{Deserialize, Serialize};

use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::options::QuantJob;

/// What must be equal for a journal to be continued, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Names and values: the version, the options, the model's files, the calibration text.
    pub entries: Vec<(String, String)>,
}

impl Identity {
    /// That of `job` on the windows of `tokens`.
    ///
    /// # Errors
    /// The model's folder cannot be read.
    pub fn of(job: &QuantJob, windows: &Windows, tokens: &[u32]) -> Result<Self, QuantError> {
        let mut entries = vec![
            (
                "dualgrain version".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            ("arithmetic".to_owned(), dualgrain_device::ARITHMETIC.to_string()),
        ];
        entries.extend(job.options.described());
        let mut hasher = crc32fast::Hasher::new();
        for range in &windows.ranges {
            tokens[range.clone()]
                .iter()
                .for_each(|token| hasher.update(&token.to_le_bytes()));
        }
        entries.push((
            "calibration text".into(),
            format!("crc32 {:08x}", hasher.finalize()),
        ));
        let mut files = Vec::new();
        for entry in fs::read_dir(&job.model_dir).map_err(CheckpointError::io("look into", &job.model_dir))? {
            let path = entry
                .map_err(CheckpointError::io("look into", &job.model_dir))?
                .path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // Those of other programs say what the codes of older folders mean.
            let is_config = name == "config.json" || FOREIGN_CONFIGS.contains(&name.as_str());
            if is_config || name.ends_with(".safetensors") {
                files.push((format!("model file {name}"), fingerprint(&path)?));
            }
        }
        files.sort();
        entries.extend(files);
        Ok(Self { entries })
    }

    /// What differs, in words.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let value = |entries: &[(String, String)], name: &str| {
            let found = entries.iter().find(|(other, _)| other == name);
            found.map_or("nothing".to_owned(), |(_, value)| format!("`{value}`"))
        };
        let mut names: Vec<&String> = self
            .entries
            .iter()
            .chain(&now.entries)
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        names.dedup();
        let differs = |name: &&String| value(&self.entries, name) != value(&now.entries, name);
        names
            .into_iter()
            .filter(differs)
            .map(|name| {
                format!(
                    "{name}: journal {}, now {}",
                    value(&self.entries, name),
                    value(&now.entries, name)
                )
            })
            .collect()
    }
}

/// Size, time of change and checksum of the first megabyte (a checkpoint's table of tensors).
fn fingerprint(path: &Path) -> Result<String, QuantError> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let changed = metadata
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut head = Vec::new();
        file.by_ref().take(1 << 20).read_to_end(&mut head)?;
        let crc = crc32fast::hash(&head);
        Ok(format!(
            "{} bytes, changed {}, crc32 {crc:08x}",
            metadata.len(),
            changed.as_nanos()
        ))
    };
    read().map_err(|e| CheckpointError::io("read", path)(e).into())
}
