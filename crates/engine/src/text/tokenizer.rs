//! Text to tokens and back, by the tokenizer files of a model folder.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::Once;

use dualgrain_format::text::{drop_mark, mistaken};
use serde_json::Value;
use thiserror::Error;

/// Why a tokenizer could not be loaded or used.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The folder has no `tokenizer.json`.
    #[error(
        "{}: not found; a model folder needs tokenizer.json (older models have vocab.json or tokenizer.model only: \
         load them once with transformers' AutoTokenizer and call save_pretrained)", path.display()
    )]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// A tokenizer file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tokenizer file does not hold what it should.
    #[error("{}: expected {expected}, got: {got}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
        /// What is there, or what the parser said.
        got: String,
    },
    /// A text has a token that the model has no embedding for.
    #[error(
        "the text has token {token:?}, whose id is {id}, but the model's vocab_size is {vocab_size} (largest id {}): leave this token \
         out, or, if every text is refused, tokenizer.json and config.json do not belong together", vocab_size.saturating_sub(1)
    )]
    Vocabulary {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Entries of the model's embedding.
        vocab_size: usize,
    },
    /// Text could not be encoded.
    #[error("cannot encode {size_bytes} bytes of text: {message}")]
    Encode {
        /// Length of the text.
        size_bytes: usize,
        /// What the tokenizer said.
        message: String,
    },
    /// Tokens could not be decoded.
    #[error("cannot decode {num_tokens} tokens: {message}")]
    Decode {
        /// How many tokens.
        num_tokens: usize,
        /// What the tokenizer said.
        message: String,
    },
}

/// The tokenizer of a model folder.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special_tokens: BTreeMap<String, String>,
    special_ids: BTreeSet<u32>,
    /// Entries of the model's embedding.
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json` and, where present, `special_tokens_map.json` of `dir`.
    ///
    /// # Errors
    /// A missing or malformed file. Tokens whose ids are not below `vocab_size` are refused when a text has one: public models have some
    /// that their embedding never had.
    pub fn load(dir: &Path, vocab_size: usize) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes = read_optional(&path)?.ok_or_else(|| TokenizerError::Missing { path: path.clone() })?;
        Ok(Self {
            special_tokens: special_tokens(dir)?,
            ..Self::parse(&path, &bytes, vocab_size)?
        })
    }

    /// A tokenizer from the bytes of a tokenizer.json alone, without named special tokens; `path` is for messages.
    ///
    /// # Errors
    /// A malformed file.
    pub fn parse(path: &Path, json: &[u8], vocab_size: usize) -> Result<Self, TokenizerError> {
        let inner = parse(path, json)?;
        check_vocabulary(path, &inner)?;
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        Ok(Self {
            special_ids: special.map(|(&id, _)| id).collect(),
            special_tokens: BTreeMap::new(),
            inner,
            vocab_size,
        })
    }

    /// Token ids of `text`. With `special_tokens` the tokenizer adds what its model expects, as a rule one
    /// token at the start. Special tokens written out in `text` are recognized in either case.
    ///
    /// # Errors
    /// A text the tokenizer's model cannot express; a token that the model has no embedding for.
    pub fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(text, special_tokens));
        match encoding {
            Ok(encoding) => self.check_ids(encoding.get_ids().to_vec()),
            Err(message) => Err(TokenizerError::Encode {
                size_bytes: text.len(),
                message,
            }),
        }
    }

    fn check_ids(&self, ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(ids),
            Some(&id) => Err(TokenizerError::Vocabulary {
                token: self.inner.id_to_token(id).unwrap_or_default(),
                id,
                vocab_size: self.vocab_size,
            }),
        }
    }

    /// Text of `ids`; with `skip_special_tokens` without end-of-text and its kind. Bytes that are not UTF-8 become
    /// U+FFFD; ids without a token become nothing.
    ///
    /// # Errors
    /// A decoder that fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        let text = guarded(|| self.inner.decode(ids, skip_special_tokens));
        text.map_err(|message| TokenizerError::Decode {
            num_tokens: ids.len(),
            message,
        })
    }

    /// Whether a token is one of those that stand for no text (end of text, roles of a chat).
    pub fn is_special(&self, id: u32) -> bool {
        self.special_ids.contains(&id)
    }

    /// The id of a token written exactly like this; `None` too where the model has no embedding for it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        let id = self.inner.token_to_id(token)?;
        ((id as usize) < self.vocab_size).then_some(id)
    }

    /// How a special token is written; `None` for other tokens.
    pub fn special_text(&self, id: u32) -> Option<String> {
        let text = self.is_special(id).then(|| self.inner.id_to_token(id));
        text.flatten()
    }

    /// Named special tokens (`bos_token`, `eos_token`, `pad_token`, ...) and how they are written.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special_tokens
    }

    /// What a tokenizer.json of this tokenizer holds.
    ///
    /// # Errors
    /// A tokenizer that the library can not write.
    pub fn to_json(&self) -> Result<Value, TokenizerError> {
        serde_json::to_value(&self.inner).map_err(|error| TokenizerError::Decode {
            num_tokens: 0,
            message: error.to_string(),
        })
    }

    /// The id of the token a text ends with, where the folder names one.
    pub fn eos_id(&self) -> Option<u32> {
        self.token_id(self.special_tokens.get("eos_token")?)
    }

    /// The id of the token a text begins with, where the folder names one.
    pub fn bos_id(&self) -> Option<u32> {
        self.token_id(self.special_tokens.get("bos_token")?)
    }
}

/// The named special tokens of a folder: tokenizer_config.json, then special_tokens_map.json for those it lacks.
pub(crate) fn special_tokens(dir: &Path) -> Result<BTreeMap<String, String>, TokenizerError> {
    let mut tokens = BTreeMap::new();
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let Some(Value::Object(fields)) = read_json(&dir.join(file))? else {
            continue;
        };
        for (name, value) in fields.iter().filter(|(name, _)| name.ends_with("_token")) {
            // Written as "<s>" or as {"content": "<s>", "lstrip": false, ...}; switches like add_bos_token are booleans.
            if let Some(text) = value.as_str().or_else(|| value.get("content")?.as_str()) {
                tokens.entry(name.clone()).or_insert_with(|| text.to_owned());
            }
        }
    }
    Ok(tokens)
}

/// The JSON object in a file, or `None` without the file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, TokenizerError> {
    let Some(bytes) = read_optional(path)? else {
        return Ok(None);
    };
    let content = |got: String| TokenizerError::Content {
        path: path.to_owned(),
        expected: "a JSON object",
        got,
    };
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(content("another JSON value".to_owned())),
        Err(e) => Err(content(e.to_string())),
    }
}

/// The bytes of a text file without a byte order mark, or `None` if it does not exist.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match fs::read(path) {
        Ok(bytes) if mistaken(&bytes).is_some() => Err(TokenizerError::Content {
            path: path.to_owned(),
            expected: "a text",
            got: mistaken(&bytes).unwrap_or_default().to_owned(),
        }),
        Ok(mut bytes) => {
            drop_mark(&mut bytes);
            Ok(Some(bytes))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let content = |got: String| TokenizerError::Content {
        path: path.to_owned(),
        expected: "a tokenizer of the tokenizers library",
        got,
    };
    // The library panics on JSON that ends early inside a decoder, so syntax is checked first.
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| content(e.to_string()))?;
    let load = || {
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)?;
        // A file may carry the truncation of its training; texts are never cut or padded here.
        inner.with_truncation(None)?;
        inner.with_padding(None);
        inner.encode_fast("", true)?;
        Ok(inner)
    };
    guarded(load).map_err(content)
}

/// The library panics on some damaged files: on a character map it cannot read, a template with an unknown special
/// token, a decoder that strips more than there is. Such a panic is an error of the file, told once.
fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => {
            Err("contents the tokenizers library cannot handle (is tokenizer.json damaged?)".to_owned())
        }
    }
}

thread_local! {
    /// Whether this thread is in [`guarded`]: then a panic is not printed, because it becomes an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

fn check_vocabulary(path: &Path, inner: &tokenizers::Tokenizer) -> Result<(), TokenizerError> {
    match inner.get_vocab_size(true) {
        0 => Err(TokenizerError::Content {
            path: path.to_owned(),
            expected: "a vocabulary",
            got: "no tokens".to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with this tokenizer.json and these other files.
    fn folder(tokenizer: &str, others: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
        for (name, content) in others {
            fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    #[test]
    fn a_token_beyond_the_models_vocabulary_is_an_error_with_both_numbers() {
        let tokenizer = r#"{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{"a":0,"zebra":12},"unk_token":"a"}}"#;
        let dir = folder(tokenizer, &[]);
        let small = Tokenizer::load(dir.path(), 10).unwrap();
        assert_eq!(small.encode("a", false).unwrap(), [0]);
        assert_eq!(small.token_id("zebra"), None);
        let error = small.encode("zebra", false).unwrap_err().to_string();
        assert!(
            error.contains("token \"zebra\", whose id is 12, but the model's vocab_size is 10"),
            "{error}"
        );
        let large = Tokenizer::load(dir.path(), 13).unwrap();
        assert_eq!(large.encode("zebra", false).unwrap(), [12]);
        assert_eq!(large.token_id("zebra"), Some(12));
    }

    #[test]
    fn special_tokens_come_from_both_files_and_in_both_spellings() {
        let tokenizer = r#"{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{"<s>":3},"unk_token":"a"}}"#;
        let config =
            r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": null, "add_bos_token": true}"#;
        let map = r#"{"bos_token": "other", "eos_token": "</s>"}"#;
        let dir = folder(
            tokenizer,
            &[
                ("tokenizer_config.json", config),
                ("special_tokens_map.json", map),
            ],
        );
        let tokenizer = Tokenizer::load(dir.path(), 10).unwrap();
        let expected =
            [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(tokenizer.special_tokens(), &BTreeMap::from(expected));
        assert_eq!(tokenizer.bos_id(), Some(3));
    }

    #[test]
    fn damaged_folders_name_the_file() {
        let empty = tempfile::tempdir().unwrap();
        let missing = Tokenizer::load(empty.path(), 10).unwrap_err();
        assert!(matches!(missing, TokenizerError::Missing { .. }));
        let hostile = [
            "",
            "[]",
            "{}",
            "\u{0}",
            r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#,
            r#"{"version":"9","added_tokens":[],"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#,
            r#"{"version":"1.0","added_tokens":[{"id":-1}],"model":{"type":"WordLevel","vocab":{},"unk_token":"a"}}"#,
            r#"{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{},"unk_token":"a"}}"#,
            r#"{"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated","invert":false},"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#,
        ];
        // These make the library panic.
        let panicking = [
            r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#,
            r#"{"version":"1.0","added_tokens":[],"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}}],"pair":[],"special_tokens":{}},"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#,
            r#"{"version":"1.0","added_tokens":[],"decoder":{"type":"Sequence","decoders":[}}"#,
        ];
        for content in hostile.into_iter().chain(panicking) {
            let dir = folder(content, &[]);
            let error = Tokenizer::load(dir.path(), 10).expect_err(content).to_string();
            assert!(error.contains("tokenizer.json: expected"), "{error}");
        }
        let good = r#"{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
        let dir = folder(good, &[("tokenizer_config.json", "[1")]);
        let error = Tokenizer::load(dir.path(), 10).unwrap_err().to_string();
        assert!(
            error.contains("tokenizer_config.json: expected a JSON object"),
            "{error}"
        );
    }
}
