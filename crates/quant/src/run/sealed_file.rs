//! Files that get their name when they are whole and on disk, with a checksum by which they are known again.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use dualgrain_format::checkpoint::CheckpointError;
use serde::{Deserialize, Serialize};

use crate::error::QuantError;

/// What the name of a file begins with until it is whole.
pub const PARTIAL: &str = ".partial-";

/// Length and checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    bytes: u64,
    crc32: u32,
}

/// A file that gets its name when it is whole and on disk.
pub struct SealedFile {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    hasher: crc32fast::Hasher,
    bytes: u64,
    named: bool,
}

impl Drop for SealedFile {
    /// A file that could not be finished (a full disk) gives its space back.
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

impl SealedFile {
    /// Starts the file `name` of `dir` under another name.
    ///
    /// # Errors
    /// An I/O error.
    pub fn create(dir: &Path, name: &str) -> Result<Self, QuantError> {
        let partial = dir.join(format!("{PARTIAL}{name}"));
        Ok(Self {
            file: File::create(&partial).map_err(CheckpointError::io("create", &partial))?,
            target: dir.join(name),
            partial,
            hasher: crc32fast::Hasher::new(),
            bytes: 0,
            named: false,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The disk is full, or another I/O error.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), QuantError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|e| CheckpointError::io("write", &self.partial)(e).into())
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// An I/O error.
    pub fn finish(mut self) -> Result<Seal, QuantError> {
        self.file
            .sync_all()
            .and_then(|()| fs::rename(&self.partial, &self.target))
            .map_err(CheckpointError::io("write", &self.target))?;
        self.named = true;
        Ok(Seal {
            bytes: self.bytes,
            crc32: self.hasher.clone().finalize(),
        })
    }
}

impl Seal {
    /// That of a file as it lies on disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
        Ok(Self {
            bytes,
            crc32: hasher.finalize(),
        })
    }
}
