//! Float rows of every calibration window between two passes: in memory, or in a file when they would not fit.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dualgrain_format::checkpoint::{CheckpointError, f32_bytes};

use crate::error::QuantError;

/// Float rows of every window: [windows, window_len * columns].
#[derive(Debug)]
pub struct WindowRows {
    floats_per_window: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<Vec<f32>>),
    Disk { file: File, path: PathBuf },
}

impl WindowRows {
    /// Empty rows in memory.
    pub fn in_memory(num_windows: usize, floats_per_window: usize) -> Self {
        Self {
            floats_per_window,
            place: Place::Memory(vec![Vec::new(); num_windows]),
        }
    }

    /// Empty rows in a new file at `path`, which is removed on drop.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn on_disk(path: &Path, floats_per_window: usize) -> Result<Self, QuantError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(CheckpointError::io("create", path))?;
        let place = Place::Disk {
            file,
            path: path.to_path_buf(),
        };
        Ok(Self {
            floats_per_window,
            place,
        })
    }

    /// Replaces the rows of a window.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, window: usize, rows: &[f32]) -> Result<(), QuantError> {
        match &mut self.place {
            Place::Memory(windows) => {
                windows[window].clear();
                windows[window].extend_from_slice(rows);
                Ok(())
            }
            Place::Disk { file, path } => {
                let start = (window * self.floats_per_window * size_of::<f32>()) as u64;
                file.seek(SeekFrom::Start(start))
                    .and_then(|_| file.write_all(&f32_bytes(rows)))
                    .map_err(|e| CheckpointError::io("write", path)(e).into())
            }
        }
    }

    /// Copies the rows of a window into `rows`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self, window: usize, rows: &mut Vec<f32>) -> Result<(), QuantError> {
        rows.clear();
        match &mut self.place {
            Place::Memory(windows) => {
                rows.extend_from_slice(&windows[window]);
                Ok(())
            }
            Place::Disk { file, path } => {
                let mut bytes = vec![0; self.floats_per_window * size_of::<f32>()];
                let start = (window * bytes.len()) as u64;
                file.seek(SeekFrom::Start(start))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(CheckpointError::io("read", path))?;
                rows.extend(
                    bytes
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                );
                Ok(())
            }
        }
    }
}

impl Drop for WindowRows {
    fn drop(&mut self) {
        if let Place::Disk { path, .. } = &self.place {
            // A scratch file nobody reads; a destructor has nobody to report to.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_on_disk_come_back_as_from_memory_and_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.f32");
        let mut disk = WindowRows::on_disk(&path, 3).unwrap();
        let mut memory = WindowRows::in_memory(2, 3);
        let mut back = Vec::new();
        for rows in [&mut disk, &mut memory] {
            rows.write(1, &[1.5, -0.0, f32::MIN_POSITIVE]).unwrap();
            rows.write(0, &[9.0; 3]).unwrap();
            rows.read(1, &mut back).unwrap();
            assert_eq!(back, [1.5, -0.0, f32::MIN_POSITIVE]);
        }
        drop(disk);
        assert!(!path.exists());
    }
}
