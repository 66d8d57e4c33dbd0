//! API keys: read from a file, kept as hashes, compared without telling by the time it takes.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file without keys would lock everybody out.
    #[error("{}: no key in it: expected one key a line (empty lines and lines that begin with # are passed over)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Keys of which a request must name one. Only their hashes are kept.
#[derive(Clone)]
pub struct Keys(Vec<[u8; 32]>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} keys)", self.0.len())
    }
}

impl Keys {
    /// Reads a file with one key a line; empty lines and lines that begin with # are passed over.
    ///
    /// # Errors
    /// A file that can not be read or has no key.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text = fs::read_to_string(path).map_err(|source| KeysError::Read {
            path: path.to_owned(),
            source,
        })?;
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let hashes: Vec<_> = keys.map(|key| hash(key.as_bytes())).collect();
        match hashes.is_empty() {
            true => Err(KeysError::Empty {
                path: path.to_owned(),
            }),
            false => Ok(Self(hashes)),
        }
    }

    /// The number of `key` among them. Every hash is compared to its end.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let asked = hash(key);
        let equal = |known: &[u8; 32]| known.iter().zip(&asked).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0;
        let numbered = self.0.iter().enumerate();
        numbered.fold(
            None,
            |found, (number, known)| if equal(known) { Some(number) } else { found },
        )
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, KeysError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, text).unwrap();
        Keys::read(&path)
    }

    #[test]
    fn a_key_is_a_line_and_nothing_else_opens() {
        let keys = keys("# two keys\n\n  first \nsecond\r\n").unwrap();
        assert!(keys.find(b"first") == Some(0) && keys.find(b"second") == Some(1));
        for wrong in ["", "# two keys", "firs", "first ", "First", "\n"] {
            assert!(keys.find(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(2 keys)");
    }

    #[test]
    fn a_file_without_keys_is_refused() {
        let error = keys("# none\n").unwrap_err().to_string();
        assert!(error.contains("no key in it"), "{error}");
        let error = Keys::read("/no/such/file".as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/file: "), "{error}");
    }
}
