//! Text files: UTF-8, or an error that names the byte.

use std::path::Path;

use dualgrain_format::text;

use super::error::EvaluateError;

/// Reads a text.
pub(super) fn read_text(path: &Path) -> Result<String, EvaluateError> {
    text::read_text(path).map_err(EvaluateError::from)
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
