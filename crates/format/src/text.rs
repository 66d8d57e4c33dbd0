//! Texts from files: what may stand before them, and what may stand in their place.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// The UTF-8 byte order mark, which some editors write before a text; it is no part of the text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a file is no text.
#[derive(Debug, Error)]
pub enum TextError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{}: expected UTF-8 text, got {got}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is there.
        got: String,
    },
}

/// Whether bytes begin with a UTF-8 byte order mark.
pub fn has_mark(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK)
}

/// The bytes behind a byte order mark, if there is one.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// Takes a byte order mark off.
pub fn drop_mark(bytes: &mut Vec<u8>) {
    if has_mark(bytes) {
        bytes.drain(..MARK.len());
    }
}

/// What downloads and editors leave in the place of a file, and what to do then; `None` for bytes that show nothing of the kind.
pub fn mistaken(bytes: &[u8]) -> Option<&'static str> {
    let bytes = without_mark(bytes);
    let start = bytes
        .trim_ascii_start()
        .get(..64)
        .unwrap_or(bytes.trim_ascii_start());
    let start = start.to_ascii_lowercase();
    let begins = |with: &[u8]| start.starts_with(with);
    if begins(b"version https://git-lfs") || begins(b"version https://hawser") {
        return Some(
            "a Git LFS pointer in place of the file: get the file itself with `git lfs install` and `git lfs pull`, or download it again",
        );
    }
    if begins(b"<!doctype html") || begins(b"<html") || begins(b"<?xml") {
        return Some(
            "a web page in place of the file: the download gave a page of a website (a login or an error?); download the file itself",
        );
    }
    if begins(b"\xff\xfe") || begins(b"\xfe\xff") {
        return Some("UTF-16 (a byte order mark of two bytes): save it as UTF-8");
    }
    if begins(b"\x1f\x8b") {
        return Some("gzip data: unpack the file first");
    }
    // A version of one byte follows the word; a text goes on with letters.
    let is_gguf = bytes.starts_with(b"GGUF") && bytes.get(5..8).is_some_and(|high| high == [0; 3]);
    is_gguf.then_some("a GGUF file: dualgrain reads Hugging Face folders with safetensors")
}

/// The text in a file's bytes, without a byte order mark. `path` is for the error.
///
/// # Errors
/// Something else in the text's place, or bytes that are not UTF-8 (with the first of them).
pub fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, TextError> {
    match mistaken(&bytes) {
        None => utf8_of(path, bytes),
        Some(what) => Err(TextError::Content {
            path: path.to_owned(),
            got: what.to_owned(),
        }),
    }
}

/// As [`text_of`], of a text that may begin like anything: a prompt may be a web page.
///
/// # Errors
/// Bytes that are not UTF-8 (with the first of them).
pub fn utf8_of(path: &Path, mut bytes: Vec<u8>) -> Result<String, TextError> {
    drop_mark(&mut bytes);
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(offset).copied().unwrap_or(0);
        TextError::Content {
            path: path.to_owned(),
            got: format!("byte {byte:#04x} at offset {offset}"),
        }
    })
}

/// The text of a file.
///
/// # Errors
/// As [`text_of`]; a file that cannot be read.
pub fn read_text(path: &Path) -> Result<String, TextError> {
    let bytes = std::fs::read(path).map_err(|source| TextError::Read {
        path: path.to_owned(),
        source,
    })?;
    text_of(path, bytes)
}

/// A sentence for the person who gave a file that begins with a byte order mark; `None` for other files, also for those that are
/// not there and for pipes, which can be read once only.
pub fn notice_of_mark(path: &Path) -> Option<String> {
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut start = [0; 3];
    let mut file = std::fs::File::open(path).ok()?;
    std::io::Read::read_exact(&mut file, &mut start).ok()?;
    let notice = || {
        format!(
            "{}: begins with a byte order mark, which is skipped",
            path.display()
        )
    };
    has_mark(&start).then(notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, String> {
        text_of(Path::new("x.json"), bytes.to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(read(b"\xef\xbb\xbf{}").unwrap(), "{}");
        assert_eq!(read(b"\xef\xbb\xbf").unwrap(), "");
        // Inside a text the same character stays.
        assert_eq!(read("a\u{feff}b".as_bytes()).unwrap(), "a\u{feff}b");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        std::fs::write(&path, b"\xef\xbb\xbfa").unwrap();
        assert!(
            notice_of_mark(&path)
                .unwrap()
                .contains("a.txt: begins with a byte order mark")
        );
        std::fs::write(&path, b"a").unwrap();
        assert_eq!(notice_of_mark(&path), None);
        assert_eq!(notice_of_mark(&dir.path().join("none")), None);
    }

    #[test]
    fn what_stands_in_the_place_of_a_file_is_named() {
        for (bytes, name) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..],
                "Git LFS",
            ),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"<html lang=\"en\">", "web page"),
            (b"\xff\xfe{\0}\0", "UTF-16"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"GGUF\x03\0\0\0\x01", "GGUF"),
            (b"\xef\xbb\xbf<html>", "web page"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(
                error.starts_with("x.json: expected UTF-8 text, got ") && error.contains(name),
                "{error}"
            );
        }
        assert!(
            read(b"na\xefve")
                .unwrap_err()
                .ends_with("got byte 0xef at offset 2")
        );
    }
}
