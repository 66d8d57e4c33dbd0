//! What a client notes about its request for itself.

use serde_json::{Value, json};

use super::fields::{Fields, shown};
use super::ranges::{MAX_NOTE_CHARS, MAX_NOTE_NAME_CHARS, MAX_NOTES};
use crate::error::ApiError;

/// Takes `metadata`: a few short texts by name, none by default.
///
/// # Errors
/// Anything else, too many of them, or too long ones.
pub fn take_metadata(fields: &mut Fields) -> Result<Value, ApiError> {
    let Some(value) = fields.value("metadata") else {
        return Ok(json!({}));
    };
    let fits = |(name, note): (&String, &Value)| {
        let note = note
            .as_str()
            .filter(|note| note.chars().count() <= MAX_NOTE_CHARS);
        note.is_some() && name.chars().count() <= MAX_NOTE_NAME_CHARS
    };
    match value.as_object() {
        Some(notes) if notes.len() <= MAX_NOTES && notes.iter().all(fits) => Ok(value),
        _ => {
            let problem = format!(
                "expected an object of up to {MAX_NOTES} texts of at most {MAX_NOTE_CHARS} characters, with names of at most \
                 {MAX_NOTE_NAME_CHARS}, got {}",
                shown(&value)
            );
            Err(fields.error("metadata", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_a_few_short_texts_by_name() {
        let take =
            |metadata: Value| take_metadata(&mut Fields::of("", json!({"metadata": metadata})).unwrap());
        let many = |count: usize| {
            (0..count)
                .map(|n| (n.to_string(), json!("x")))
                .collect::<serde_json::Map<_, _>>()
        };
        for right in [
            json!({}),
            json!({"a": ""}),
            json!({"a": "\u{e9}".repeat(512)}),
            many(16).into(),
        ] {
            assert_eq!(take(right.clone()), Ok(right));
        }
        assert_eq!(take(Value::Null), Ok(json!({})));
        let long_name = json!({"x".repeat(65): "a"});
        for wrong in [
            json!(7),
            json!([]),
            json!("a"),
            json!({"a": 7}),
            json!({"a": "x".repeat(513)}),
            long_name,
            many(17).into(),
        ] {
            let error = take(wrong).unwrap_err();
            assert!(
                error
                    .message
                    .starts_with("metadata: expected an object of up to 16"),
                "{}",
                error.message
            );
        }
    }
}
