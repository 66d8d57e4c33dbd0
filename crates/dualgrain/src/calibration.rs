//! Calibration texts as documents: a plain file is one, a JSONL file has one a line.

use std::path::Path;

use dualgrain_format::text::read_text;
use serde_json::Value;

use crate::error::Error;

/// The field of a line that holds its text, as most data sets have it.
const FIELD: &str = "text";

/// The documents of the file `path`: the fields `text` of its lines if its name ends in `.jsonl`, else all of it.
///
/// # Errors
/// A file that is missing or not UTF-8; a line that is no JSON object with a text in its field `text`.
pub fn calibration_documents(path: &Path) -> Result<Vec<String>, Error> {
    let text = read_text(path)?;
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(vec![text]);
    }
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let document = |(index, line)| {
        document(line).map_err(|got| Error::CalibrationLine {
            path: path.to_owned(),
            line: index + 1,
            got,
        })
    };
    lines.map(document).collect()
}

/// The text of a line, or what is there instead.
fn document(line: &str) -> Result<String, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(mut object)) => match object.get_mut(FIELD).map(Value::take) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("a field `{FIELD}` that is no text")),
            None => Err("an object without that field".to_owned()),
        },
        Ok(_) => Err("JSON that is no object".to_owned()),
        Err(error) => Err(format!("text that is not JSON ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(name: &str, content: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        calibration_documents(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plain_file_is_one_document_and_a_line_of_jsonl_is_one() {
        let lines = "{\"text\": \"one\\ntwo\", \"id\": 3}\n\n{\"text\": \"\"}\n";
        assert_eq!(documents("a.txt", lines).unwrap(), [lines]);
        assert_eq!(documents("a.jsonl", lines).unwrap(), ["one\ntwo", ""]);
    }

    #[test]
    fn what_is_no_document_is_named_with_file_and_line() {
        for (line, got) in [
            ("{\"content\": \"x\"}", "without that field"),
            ("{\"text\": 3}", "no text"),
            ("[1]", "no object"),
            ("{\"text\": \"a", "not JSON"),
        ] {
            let message = documents("a.jsonl", &format!("{{\"text\": \"x\"}}\n{line}\n")).unwrap_err();
            assert!(
                message.contains("a.jsonl:2: ") && message.contains(got),
                "{message}"
            );
        }
        let missing = calibration_documents(Path::new("nowhere.txt")).unwrap_err();
        assert!(missing.to_string().contains("nowhere.txt: "), "{missing}");
    }
}
