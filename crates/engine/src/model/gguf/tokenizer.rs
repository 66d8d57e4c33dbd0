//! tokenizer.json and tokenizer_config.json of the tokenizer in a GGUF file.

use std::collections::HashMap;

use dualgrain_format::gguf::words::{LLAMA_3, QWEN_2};
use serde_json::{Map, Value, json};

/// What stands for a space in the tokens of SentencePiece.
const SPACE: &str = "\u{2581}";

/// Kinds of tokens, by their numbers in the format.
mod kind {
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
    pub const UNUSED: i64 = 5;
}

/// The tokens of a file and what else it says of them.
struct Tokens<'a> {
    metadata: &'a Map<String, Value>,
    tokens: Vec<&'a str>,
    kinds: Vec<i64>,
}

/// tokenizer.json and tokenizer_config.json; in words what is not read.
pub fn tokenizer(metadata: &Map<String, Value>) -> Result<[Value; 2], String> {
    let tokens = Tokens::of(metadata)?;
    let model = tokens.text("model").unwrap_or("missing");
    let (mut file, adds_first) = match model {
        "gpt2" => tokens.by_bytes()?,
        "llama" => tokens.by_spaces()?,
        other => {
            return Err(format!(
                "`tokenizer.ggml.model` is {other}, expected gpt2 or llama"
            ));
        }
    };
    file["version"] = "1.0".into();
    file["added_tokens"] = tokens.added();
    file["post_processor"] = tokens.around(adds_first)?;
    Ok([file, tokens.names()])
}

impl<'a> Tokens<'a> {
    fn of(metadata: &'a Map<String, Value>) -> Result<Self, String> {
        let list = |name: &str| {
            metadata
                .get(&format!("tokenizer.ggml.{name}"))
                .and_then(Value::as_array)
        };
        let tokens = list("tokens").ok_or("`tokenizer.ggml.tokens` is missing: the file has no tokenizer")?;
        let tokens: Option<Vec<&str>> = tokens.iter().map(Value::as_str).collect();
        let tokens = tokens.ok_or("`tokenizer.ggml.tokens` is no list of texts")?;
        let kinds = list("token_type").map(|kinds| kinds.iter().map(|kind| kind.as_i64().unwrap_or(1)));
        let kinds = kinds.map_or_else(|| vec![1; tokens.len()], Iterator::collect);
        if kinds.len() != tokens.len() {
            return Err(format!(
                "`tokenizer.ggml.token_type` has {} entries, expected {}, one a token",
                kinds.len(),
                tokens.len()
            ));
        }
        Ok(Self {
            metadata,
            tokens,
            kinds,
        })
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.metadata.get(&format!("tokenizer.ggml.{name}"))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.value(name).and_then(Value::as_str)
    }

    fn token(&self, name: &str) -> Option<&'a str> {
        let id = self.value(&format!("{name}_token_id"))?.as_u64()?;
        self.tokens.get(usize::try_from(id).ok()?).copied()
    }

    /// Tokens that stand for a text, with their numbers.
    fn used(&self) -> impl Iterator<Item = (usize, &'a str, i64)> {
        let all = self.tokens.iter().zip(&self.kinds).enumerate();
        all.filter(|(_, (_, kind))| **kind != kind::UNUSED)
            .map(|(id, (token, kind))| (id, *token, *kind))
    }

    fn vocabulary(&self) -> Result<HashMap<&'a str, usize>, String> {
        let mut vocabulary = HashMap::new();
        for (id, token, _) in self.used() {
            if vocabulary.insert(token, id).is_some() {
                return Err(format!("`tokenizer.ggml.tokens` has {token:?} twice"));
            }
        }
        Ok(vocabulary)
    }

    fn in_order(vocabulary: HashMap<&str, usize>) -> Value {
        let mut words: Vec<_> = vocabulary.into_iter().collect();
        words.sort_by_key(|&(_, id)| id);
        let words = words.into_iter().map(|(token, id)| (token.to_owned(), json!(id)));
        Value::Object(words.collect())
    }

    /// Bytes written as characters, joined by a list of merges. Returns also whether a text begins with a token where the file does not say.
    fn by_bytes(&self) -> Result<(Value, bool), String> {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let split = |pattern: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}, bytes(false)]})
        };
        let digits = json!({"type": "Digits", "individual_digits": true});
        let pre = self.text("pre").unwrap_or("missing");
        let is_llama_3 = matches!(pre, "llama-bpe" | "llama3" | "llama-v3");
        let (words, normalizer) = match pre {
            _ if is_llama_3 => (split(LLAMA_3), Value::Null),
            "qwen2" => (split(QWEN_2), json!({"type": "NFC"})),
            "gpt-2" => (bytes(true), Value::Null),
            "smollm" => (
                json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]}),
                Value::Null,
            ),
            other => {
                return Err(format!(
                    "`tokenizer.ggml.pre` is {other}, expected llama-bpe, qwen2, gpt-2 or smollm"
                ));
            }
        };
        let merges = self.value("merges").cloned();
        let merges = merges.ok_or("`tokenizer.ggml.merges` is missing")?;
        let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": is_llama_3,
            "vocab": Self::in_order(self.vocabulary()?), "merges": merges});
        let file =
            json!({"normalizer": normalizer, "pre_tokenizer": words, "decoder": bytes(true), "model": model});
        Ok((file, is_llama_3))
    }

    /// SentencePiece: spaces written as a character, pairs joined by the scores of what they make.
    fn by_spaces(&self) -> Result<(Value, bool), String> {
        let vocabulary = self.vocabulary()?;
        let merges = self.merges(&vocabulary)?;
        let begins_with_space = self
            .value("add_space_prefix")
            .and_then(Value::as_bool)
            .unwrap_or(true);
        let prepend = json!({"type": "Prepend", "prepend": SPACE});
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        let mut normalizers = vec![replace];
        if begins_with_space {
            normalizers.insert(0, prepend);
            decoders.push(strip);
        }
        let unknown = self.used().find(|(_, _, kind)| *kind == kind::UNKNOWN);
        let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown.map(|(_, token, _)| token),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "ignore_merges": false, "vocab": Self::in_order(vocabulary), "merges": merges});
        let file = json!({"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": decoders}, "model": model});
        Ok((file, true))
    }

    /// All pairs of tokens that make a token; those of the highest scores are joined first.
    fn merges(&self, vocabulary: &HashMap<&str, usize>) -> Result<Vec<[&'a str; 2]>, String> {
        let scores = self.value("scores").and_then(Value::as_array);
        let scores = scores.ok_or("`tokenizer.ggml.scores` is missing")?;
        let mut merges = Vec::new();
        for (id, token, kind) in self.used() {
            if kind != 1 && kind != kind::USER_DEFINED {
                continue;
            }
            let score = scores.get(id).and_then(Value::as_f64).unwrap_or(f64::MIN);
            for (at, _) in token.char_indices().skip(1) {
                let pair = token.split_at(at);
                if let (Some(left), Some(right)) = (vocabulary.get(pair.0), vocabulary.get(pair.1)) {
                    merges.push((score, pair, (*left, *right)));
                }
            }
        }
        merges.sort_by(|(a, left, a_ids), (b, right, b_ids)| {
            b.total_cmp(a)
                .then(right.0.len().cmp(&left.0.len()))
                .then(a_ids.cmp(b_ids))
        });
        Ok(merges.into_iter().map(|(_, pair, _)| [pair.0, pair.1]).collect())
    }

    /// Tokens that are never cut.
    fn added(&self) -> Value {
        let is_added = |kind: i64| [kind::UNKNOWN, kind::CONTROL, kind::USER_DEFINED].contains(&kind);
        let added = self.used().filter(|(_, _, kind)| is_added(*kind));
        let added = added.map(|(id, token, kind)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": kind != kind::USER_DEFINED})
        });
        added.collect()
    }

    /// The tokens before and behind a text.
    fn around(&self, adds_first: bool) -> Result<Value, String> {
        let asked = |name: &str, usual: bool| self.value(name).and_then(Value::as_bool).unwrap_or(usual);
        let (mut single, mut special) = (vec![json!({"Sequence": {"id": "A", "type_id": 0}})], Map::new());
        for (name, is_asked) in [
            ("bos", asked("add_bos_token", adds_first)),
            ("eos", asked("add_eos_token", false)),
        ] {
            if !is_asked {
                continue;
            }
            let id = self.value(&format!("{name}_token_id"));
            let (Some(token), Some(id)) = (self.token(name), id) else {
                return Err(format!(
                    "`tokenizer.ggml.{name}_token_id` is no token, but texts get it"
                ));
            };
            let part = json!({"SpecialToken": {"id": token, "type_id": 0}});
            single.insert(if name == "bos" { 0 } else { single.len() }, part);
            special.insert(
                token.to_owned(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            );
        }
        if special.is_empty() {
            return Ok(Value::Null);
        }
        let mut pair = single.clone();
        pair.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
        Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}))
    }

    /// Named tokens, and the chat template.
    fn names(&self) -> Value {
        let mut names = Map::new();
        for (name, field) in [
            ("bos", "bos_token"),
            ("eos", "eos_token"),
            ("padding", "pad_token"),
            ("unknown", "unk_token"),
        ] {
            if let Some(token) = self.token(name) {
                names.insert(field.to_owned(), token.into());
            }
        }
        if let Some(template) = self.metadata.get("tokenizer.chat_template") {
            names.insert("chat_template".to_owned(), template.clone());
        }
        Value::Object(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn pieces_are_joined_by_their_scores() {
        let found = tokenizer(&metadata(json!({"tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a", "b", "c", "ab", "bc", "abc"],
            "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 1, 1],
            "tokenizer.ggml.scores": [0, 0, 0, -9, -9, -9, -1, 0, -2], "tokenizer.ggml.bos_token_id": 1})));
        let [file, names] = found.unwrap();
        assert_eq!(
            file["model"]["merges"],
            json!([["b", "c"], ["a", "b"], ["ab", "c"], ["a", "bc"]])
        );
        assert_eq!(file["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
        assert_eq!(
            (
                &names["bos_token"],
                file["added_tokens"].as_array().unwrap().len()
            ),
            (&json!("<s>"), 3)
        );
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let list = json!(["a"]);
        for (value, words) in [
            (json!({}), "tokenizer.ggml.tokens"),
            (
                json!({"tokenizer.ggml.tokens": list, "tokenizer.ggml.model": "bert"}),
                "bert",
            ),
            (
                json!({"tokenizer.ggml.tokens": list, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "tekken"}),
                "tekken",
            ),
            (
                json!({"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.model": "llama"}),
                "twice",
            ),
            (
                json!({"tokenizer.ggml.tokens": list, "tokenizer.ggml.model": "llama"}),
                "scores",
            ),
            (
                json!({"tokenizer.ggml.tokens": list, "tokenizer.ggml.token_type": []}),
                "token_type",
            ),
        ] {
            let error = tokenizer(&metadata(value)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
