//! Text files: UTF-8, or an error that names the byte.

use std::path::Path;

use dualgrain_format::text::{drop_mark, mistaken};

use super::error::EvaluateError;

/// Reads a text.
pub(super) fn read_text(path: &Path) -> Result<String, EvaluateError> {
    let mut bytes = std::fs::read(path).map_err(|source| EvaluateError::Read {
        path: path.to_owned(),
        source,
    })?;
    if let Some(what) = mistaken(&bytes) {
        return Err(EvaluateError::Content {
            path: path.to_owned(),
            what,
        });
    }
    drop_mark(&mut bytes);
    String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to();
        EvaluateError::Utf8 {
            path: path.to_owned(),
            got: e.as_bytes().get(offset).copied().unwrap_or(0),
            offset,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_not_utf8_names_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latin1.txt");
        std::fs::write(&path, b"na\xefve").unwrap();
        let error = read_text(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("latin1.txt: expected UTF-8 text, got byte 0xef at offset 2"),
            "{error}"
        );
        assert!(matches!(
            read_text(&dir.path().join("none")),
            Err(EvaluateError::Read { .. })
        ));
    }
}
