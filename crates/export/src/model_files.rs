//! The files that go along unchanged: tokenizer, templates, generation settings, licence.

use std::fs;
use std::path::{Path, PathBuf};

use dualgrain_format::checkpoint::{CheckpointError, FolderWriter, MODEL_FILES, TEMPLATES};

use crate::error::ExportError;

/// Copies them from `dir`.
///
/// # Errors
/// A file that can not be read or written.
pub fn copy(dir: &Path, writer: &mut FolderWriter) -> Result<(), ExportError> {
    for name in MODEL_FILES {
        let path = dir.join(name);
        if path.is_file() {
            writer.write_file(name, &read(&path)?)?;
        }
    }
    for path in templates(&dir.join(TEMPLATES)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        writer.write_file_in(TEMPLATES, &name, &read(&path)?)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, ExportError> {
    Ok(fs::read(path).map_err(CheckpointError::io("read", path))?)
}

/// Files of templates in a folder, in order.
fn templates(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut files: Vec<_> = paths
        .filter(|path| path.is_file() && path.extension().is_some_and(|end| end == "jinja"))
        .collect();
    files.sort();
    files
}
