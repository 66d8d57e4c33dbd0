//! The two checksums that the hub names files by.

use std::fmt;
use std::fmt::Write;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A checksum of a file. Its text is the file's name in the cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checksum {
    /// SHA-256 of the content: files that Git LFS keeps.
    Sha256(String),
    /// What git calls the content by: SHA-1 of `blob LENGTH`, a zero and the content.
    Git(String),
}

impl Checksum {
    /// Reads a checksum of either kind: 64 or 40 hexadecimal digits, as they stand or in the quotes of an ETag.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text
            .trim()
            .trim_start_matches("W/")
            .trim_matches('"')
            .to_ascii_lowercase();
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text.len() {
            64 if is_hex => Some(Self::Sha256(text)),
            40 if is_hex => Some(Self::Git(text)),
            _ => None,
        }
    }

    /// Its digits.
    pub fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }

    /// Begins a checksum of this kind over a file of `size_bytes`.
    pub fn begin(&self, size_bytes: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Git(_) => Hasher::Git(Sha1::new().chain_update(format!("blob {size_bytes}\0"))),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A checksum under way.
#[derive(Clone)]
pub enum Hasher {
    /// See [`Checksum::Sha256`].
    Sha256(Sha256),
    /// See [`Checksum::Git`].
    Git(Sha1),
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// The checksum of all bytes taken.
    pub fn end(self) -> Checksum {
        match self {
            Self::Sha256(hasher) => Checksum::Sha256(digits(&hasher.finalize())),
            Self::Git(hasher) => Checksum::Git(digits(&hasher.finalize())),
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_sha256sum_and_git() {
        // `printf 'hello\n' | sha256sum` and `git hash-object`.
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for text in [sha, git] {
            let expected = Checksum::parse(text).unwrap();
            let mut hasher = expected.begin(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.end(), expected);
        }
    }

    #[test]
    fn etags_are_read_and_nothing_else_is() {
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(Checksum::parse(&format!("W/\"{git}\"")).unwrap().text(), git);
        for wrong in ["", "abc", "../../../../etc/passwd-0123456789abcdef01", &git[1..]] {
            assert_eq!(Checksum::parse(wrong), None, "{wrong}");
        }
    }
}
