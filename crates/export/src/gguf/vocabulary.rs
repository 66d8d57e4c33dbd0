//! Tokens by number, with their kinds, merges and ranks.

use std::collections::BTreeMap;

use serde_json::Value;

/// The kinds that a token can have, with their numbers in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A part of texts.
    Normal = 1,
    /// What stands for anything that no token covers.
    Unknown = 2,
    /// A token with a meaning of its own, not printed.
    Control = 3,
    /// A word that is always one token.
    UserDefined = 4,
    /// Nothing: the embedding has more rows than there are tokens.
    Unused = 5,
    /// A byte of a text that no token covers.
    Byte = 6,
}

/// Every token of a model, by number.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// How each is written.
    pub tokens: Vec<String>,
    /// Its kind.
    pub kinds: Vec<TokenKind>,
    /// Pairs that are joined, the first ones first.
    pub merges: Vec<[String; 2]>,
}

impl Vocabulary {
    /// The vocabulary of a tokenizer.json for an embedding of `num_rows` rows. Tokens beyond that are left out: no model can read them.
    ///
    /// # Errors
    /// In words, what the file has in the place of a BPE vocabulary.
    pub fn new(tokenizer: &Value, num_rows: usize) -> Result<Self, String> {
        let model = &tokenizer["model"];
        if model["type"] != "BPE" {
            return Err(format!("a tokenizer of the type {}", model["type"]));
        }
        let written = |name: &str| model[name].as_str().is_some_and(|text| !text.is_empty());
        if let Some(name) = ["continuing_subword_prefix", "end_of_word_suffix"]
            .into_iter()
            .find(|name| written(name))
        {
            return Err(format!("a tokenizer with `{name}`"));
        }
        let mut vocabulary = Self {
            tokens: (0..num_rows).map(|id| format!("[PAD{id}]")).collect(),
            kinds: vec![TokenKind::Unused; num_rows],
            merges: merges(model),
        };
        vocabulary.add_words(model);
        vocabulary.add_added(tokenizer);
        Ok(vocabulary)
    }

    /// The number of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        let id = self.tokens.iter().position(|other| other == token)?;
        u32::try_from(id).ok()
    }

    /// For each token, the score by which SentencePiece joins pairs to it: the earlier the higher. What no pair makes has the lowest.
    pub fn scores(&self) -> Vec<f32> {
        let mut ranks: BTreeMap<String, usize> = BTreeMap::new();
        for (rank, pair) in self.merges.iter().enumerate() {
            ranks.entry(pair.concat()).or_insert(rank);
        }
        let lowest = self.merges.len();
        let score = |token: &String| -(ranks.get(token).copied().unwrap_or(lowest) as f32);
        self.tokens.iter().map(score).collect()
    }

    fn add_words(&mut self, model: &Value) {
        let has_bytes = model["byte_fallback"] == Value::Bool(true);
        for (token, id) in model["vocab"].as_object().into_iter().flatten() {
            let kind = match () {
                () if model["unk_token"] == token.as_str() => TokenKind::Unknown,
                () if has_bytes && is_byte(token) => TokenKind::Byte,
                () => TokenKind::Normal,
            };
            self.set(id, token, kind);
        }
    }

    fn add_added(&mut self, tokenizer: &Value) {
        for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let Some(token) = added["content"].as_str() else {
                continue;
            };
            let kind = match () {
                () if tokenizer["model"]["unk_token"] == token => TokenKind::Unknown,
                () if added["special"] == Value::Bool(true) => TokenKind::Control,
                () => TokenKind::UserDefined,
            };
            self.set(&added["id"], token, kind);
        }
    }

    fn set(&mut self, id: &Value, token: &str, kind: TokenKind) {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let places = id.and_then(|id| Some((self.tokens.get_mut(id)?, self.kinds.get_mut(id)?)));
        if let Some((place, kind_place)) = places {
            *place = token.to_owned();
            *kind_place = kind;
        }
    }
}

/// Whether a token is written like `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Merges as pairs, or as texts with a space between, as older files have them.
fn merges(model: &Value) -> Vec<[String; 2]> {
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(a, b)| [a.to_owned(), b.to_owned()]),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(a), Value::String(b)] => Some([a.clone(), b.clone()]),
            _ => None,
        },
        _ => None,
    };
    let merges = model["merges"].as_array().into_iter().flatten();
    merges.filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokenizer() -> Value {
        json!({
            "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
                "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "a": 3, "b": 4, "ab": 5, "abb": 6, "far": 40},
                "merges": [["a", "b"], "ab b"]},
            "added_tokens": [
                {"id": 0, "content": "<unk>", "special": true},
                {"id": 1, "content": "<s>", "special": true},
                {"id": 7, "content": "word", "special": false}
            ]
        })
    }

    #[test]
    fn tokens_have_their_numbers_kinds_and_scores() {
        use TokenKind::{Byte, Control, Normal, Unknown, Unused, UserDefined};
        let vocabulary = Vocabulary::new(&tokenizer(), 9).unwrap();
        assert_eq!(
            vocabulary.tokens,
            ["<unk>", "<s>", "<0x0A>", "a", "b", "ab", "abb", "word", "[PAD8]"]
        );
        assert_eq!(
            vocabulary.kinds,
            [
                Unknown,
                Control,
                Byte,
                Normal,
                Normal,
                Normal,
                Normal,
                UserDefined,
                Unused
            ]
        );
        let scores = vocabulary.scores();
        assert_eq!((scores[5], scores[6], scores[3]), (0.0, -1.0, -2.0));
        assert_eq!((vocabulary.id("ab"), vocabulary.id("far")), (Some(5), None));
    }

    #[test]
    fn other_kinds_of_tokenizers_are_said() {
        let error = Vocabulary::new(&json!({"model": {"type": "Unigram"}}), 9).unwrap_err();
        assert!(error.contains("Unigram"), "{error}");
        let suffix = json!({"model": {"type": "BPE", "end_of_word_suffix": "</w>"}});
        assert!(
            Vocabulary::new(&suffix, 9)
                .unwrap_err()
                .contains("end_of_word_suffix")
        );
    }
}
