//! How a tokenizer cuts a text into words, by the names that llama.cpp has for it.

use dualgrain_format::gguf::words::{LLAMA_3, QWEN_2};
use serde_json::Value;

/// How a tokenizer's text becomes words, in either kind of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Bytes written as characters, words by a pattern that has a name.
    Bytes {
        /// The name.
        name: &'static str,
        /// Whether a word that is a token is taken whole.
        takes_whole_words: bool,
    },
    /// Spaces written as a character, no words.
    Spaces {
        /// Whether a text gets a space before it.
        begins_with_space: bool,
        /// Whether that is so behind every special token too.
        after_special_tokens: bool,
    },
}

/// The words of a tokenizer.json, or what of it llama.cpp has no name for.
pub fn words(tokenizer: &Value) -> Result<Words, String> {
    if tokenizer["model"]["byte_fallback"] == Value::Bool(true) {
        return spaces(tokenizer);
    }
    let normalizer = kind(&tokenizer["normalizer"]);
    let found = pattern(&tokenizer["pre_tokenizer"]);
    match (found, normalizer) {
        (Some(words), None) => Ok(words),
        // Qwen's tokenizers compose characters first, which llama.cpp leaves out; texts are composed as a rule.
        (Some(words @ Words::Bytes { name: "qwen2", .. }), Some("NFC")) => Ok(words),
        (Some(_), Some(other)) => Err(format!("a tokenizer with the normalizer {other}")),
        (None, _) => Err(format!("the pre-tokenizer {}", tokenizer["pre_tokenizer"])),
    }
}

fn kind(value: &Value) -> Option<&str> {
    value["type"].as_str()
}

fn pattern(pre_tokenizer: &Value) -> Option<Words> {
    let of_steps = |steps: &[Value]| match steps {
        [one] => by_bytes(one, true).then_some("gpt-2"),
        [digits, bytes] if is_each_digit(digits) && by_bytes(bytes, true) => Some("smollm"),
        [split, bytes] if by_bytes(bytes, false) => match split["pattern"]["Regex"].as_str()? {
            LLAMA_3 => Some("llama-bpe"),
            QWEN_2 => Some("qwen2"),
            _ => None,
        },
        _ => None,
    };
    let steps = match kind(pre_tokenizer)? {
        "Sequence" => pre_tokenizer["pretokenizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let name = of_steps(steps)?;
    let takes_whole_words = name == "llama-bpe";
    Some(Words::Bytes {
        name,
        takes_whole_words,
    })
}

/// Whether a step writes bytes as characters, and cuts words by the pattern of GPT-2 before that or not.
fn by_bytes(step: &Value, cuts: bool) -> bool {
    kind(step) == Some("ByteLevel")
        && step["add_prefix_space"] == Value::Bool(false)
        && step["use_regex"].as_bool().unwrap_or(true) == cuts
}

fn is_each_digit(step: &Value) -> bool {
    kind(step) == Some("Digits") && step["individual_digits"] == Value::Bool(true)
}

/// SentencePiece's way, as tokenizer.json has it: in the normalizer (before 2024) or as the pre-tokenizer Metaspace.
fn spaces(tokenizer: &Value) -> Result<Words, String> {
    let (normalizer, pre_tokenizer) = (&tokenizer["normalizer"], &tokenizer["pre_tokenizer"]);
    match (kind(normalizer), kind(pre_tokenizer)) {
        (None, Some("Metaspace")) => {
            let scheme = pre_tokenizer["prepend_scheme"].as_str().unwrap_or("always");
            Ok(Words::Spaces {
                begins_with_space: scheme != "never",
                after_special_tokens: scheme != "first",
            })
        }
        (Some("Sequence"), None) => spaces_of_steps(&normalizer["normalizers"]),
        (Some("Replace"), None) => spaces_of_steps(&Value::Array(vec![normalizer.clone()])),
        _ => Err(format!(
            "byte fallback with the normalizer {normalizer} and the pre-tokenizer {pre_tokenizer}"
        )),
    }
}

fn spaces_of_steps(steps: &Value) -> Result<Words, String> {
    let steps = steps.as_array().map(Vec::as_slice).unwrap_or_default();
    let prepends = |step: &Value| kind(step) == Some("Prepend") && step["prepend"] == "\u{2581}";
    let replaces = |step: &Value| {
        kind(step) == Some("Replace") && step["pattern"]["String"] == " " && step["content"] == "\u{2581}"
    };
    let begins_with_space = match steps {
        [first, second] if prepends(first) && replaces(second) => true,
        [only] if replaces(only) => false,
        _ => {
            return Err(format!(
                "byte fallback with the normalizers {}",
                Value::Array(steps.to_vec())
            ));
        }
    };
    Ok(Words::Spaces {
        begins_with_space,
        after_special_tokens: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(pre_tokenizer: Value, normalizer: Value) -> Result<Words, String> {
        words(
            &json!({"model": {"byte_fallback": false}, "pre_tokenizer": pre_tokenizer, "normalizer": normalizer}),
        )
    }

    fn split(pattern: &str) -> Value {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
        ]})
    }

    fn name(words: Result<Words, String>) -> &'static str {
        match words {
            Ok(Words::Bytes { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn patterns_have_the_names_of_llama_cpp() {
        let gpt2 =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        assert_eq!(name(of(gpt2.clone(), json!(null))), "gpt-2");
        assert_eq!(name(of(split(LLAMA_3), json!(null))), "llama-bpe");
        assert_eq!(name(of(split(QWEN_2), json!({"type": "NFC"}))), "qwen2");
        let digits = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, gpt2]});
        assert_eq!(name(of(digits, json!(null))), "smollm");
    }

    #[test]
    fn what_has_no_name_is_said() {
        let other = of(split(r"\w+"), json!(null)).unwrap_err();
        assert!(other.contains(r"\\w+"), "{other}");
        let lower = of(split(LLAMA_3), json!({"type": "Lowercase"})).unwrap_err();
        assert!(lower.contains("Lowercase"), "{lower}");
        let prefix = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true});
        assert!(of(prefix, json!(null)).is_err());
    }

    #[test]
    fn spaces_are_marked_in_either_spelling() {
        let spaces = |normalizer: Value, pre_tokenizer: Value| {
            words(
                &json!({"model": {"byte_fallback": true}, "pre_tokenizer": pre_tokenizer, "normalizer": normalizer}),
            )
        };
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
        let old = json!({"type": "Sequence", "normalizers": [prepend, replace]});
        let expected = |begins_with_space, after_special_tokens| Words::Spaces {
            begins_with_space,
            after_special_tokens,
        };
        assert_eq!(spaces(old, json!(null)), Ok(expected(true, true)));
        let new = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false});
        assert_eq!(spaces(json!(null), new), Ok(expected(true, false)));
        assert_eq!(spaces(replace, json!(null)), Ok(expected(false, true)));
        assert!(spaces(json!({"type": "NFKC"}), json!(null)).is_err());
    }
}
