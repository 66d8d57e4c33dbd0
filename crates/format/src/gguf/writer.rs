//! Writing: all names first, then the data of one tensor after the other.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;
use crate::gguf::types::{ALIGNMENT, GgufTensor, GgufValue, MAGIC, VERSION, text_bytes};

/// A file on its way; tensors come in the order in which they were announced.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    file: BufWriter<File>,
    tensors: std::vec::IntoIter<(GgufTensor, usize)>,
}

impl GgufWriter {
    /// Makes the file and writes everything but the data.
    ///
    /// # Errors
    /// The file is there already or can not be written; a tensor whose rows are no whole blocks.
    pub fn create(
        path: &Path,
        metadata: &[(String, GgufValue)],
        tensors: Vec<GgufTensor>,
    ) -> Result<Self, CheckpointError> {
        let sized = tensors.into_iter().map(|tensor| match tensor.num_bytes() {
            Some(bytes) => Ok((tensor, bytes)),
            None => Err(problem(
                &tensor.name,
                format!("shape {:?} has no whole blocks", tensor.shape),
            )),
        });
        let tensors = sized.collect::<Result<Vec<_>, _>>()?;
        let header = header(metadata, &tensors);
        let file = File::create_new(path).map_err(CheckpointError::io("create", path))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            tensors: tensors.into_iter(),
        };
        writer.put(&header)?;
        writer.pad(header.len())?;
        Ok(writer)
    }

    /// Writes the data of the next tensor.
    ///
    /// # Errors
    /// Another tensor than the next one, another number of bytes, or an I/O error.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        match self.tensors.next() {
            Some((next, expected)) if next.name == name && expected == bytes.len() => {}
            Some((next, expected)) => {
                let came = format!(
                    "came with {} bytes where `{}` with {expected} is next",
                    bytes.len(),
                    next.name
                );
                return Err(problem(name, came));
            }
            None => return Err(problem(name, "was not announced".into())),
        }
        self.put(bytes)?;
        self.pad(bytes.len())
    }

    /// Checks that every tensor came, and syncs the file.
    ///
    /// # Errors
    /// A tensor that never came, or an I/O error.
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        if let Some((missing, _)) = self.tensors.next() {
            return Err(problem(&missing.name, "announced but never written".into()));
        }
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(CheckpointError::io("finish writing", &self.path))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let written = self.file.write_all(bytes);
        written.map_err(CheckpointError::io("write", &self.path))
    }

    /// Zeros behind `len` bytes, up to where the next data may begin.
    fn pad(&mut self, len: usize) -> Result<(), CheckpointError> {
        let zeros = aligned(len as u64) as usize - len;
        self.put(&vec![0; zeros])
    }
}

fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

fn header(metadata: &[(String, GgufValue)], tensors: &[(GgufTensor, usize)]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (name, value) in metadata {
        header.extend(text_bytes(name));
        header.extend(value.to_bytes());
    }
    let mut place = 0_u64;
    for (tensor, bytes) in tensors {
        header.extend(text_bytes(&tensor.name));
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        let sizes = tensor.shape.iter().rev();
        sizes.for_each(|&size| header.extend((size as u64).to_le_bytes()));
        header.extend(tensor.kind.number().to_le_bytes());
        header.extend(place.to_le_bytes());
        place += aligned(*bytes as u64);
    }
    header
}

fn problem(name: &str, problem: String) -> CheckpointError {
    CheckpointError::Tensor {
        name: name.into(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::blocks::GgufKind;

    fn tensors() -> Vec<GgufTensor> {
        let tensor = |name: &str, kind, shape: &[usize]| GgufTensor {
            name: name.into(),
            kind,
            shape: shape.to_vec(),
        };
        vec![
            tensor("a", GgufKind::F32, &[3]),
            tensor("b", GgufKind::Q8_0, &[1, 32]),
        ]
    }

    #[test]
    fn data_begins_at_multiples_of_32_behind_the_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let metadata = [("x".to_owned(), GgufValue::U32(5))];
        let mut writer = GgufWriter::create(&path, &metadata, tensors()).unwrap();
        writer.write("a", &[1; 12]).unwrap();
        writer.write("b", &[2; 34]).unwrap();
        writer.finish().unwrap();
        let file = std::fs::read(&path).unwrap();
        assert_eq!(file[..12], *b"GGUF\x03\0\0\0\x02\0\0\0");
        // 24 bytes, metadata 9 + 8, the tensors 9 + 4 + 8 + 4 + 8 and 9 + 4 + 16 + 4 + 8.
        let start = (24_usize + 17 + 33 + 41).next_multiple_of(32);
        assert_eq!(file.len(), start + 32 + 64);
        assert_eq!(file[start..start + 13], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(file[start + 32..start + 66], [2; 34]);
        assert_eq!(file[start + 66..], [0; 30]);
        assert!(
            GgufWriter::create(&path, &metadata, tensors()).is_err(),
            "nothing is written over"
        );
    }

    #[test]
    fn tensors_that_do_not_come_as_announced_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let create = |name: &str| GgufWriter::create(&dir.path().join(name), &[], tensors()).unwrap();
        assert!(create("order").write("b", &[0; 34]).is_err());
        assert!(create("size").write("a", &[0; 11]).is_err());
        let error = create("few").finish().unwrap_err().to_string();
        assert!(
            error.contains("`a`") && error.contains("never written"),
            "{error}"
        );
    }
}
