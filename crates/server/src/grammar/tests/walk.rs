//! Walks through masks.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{ConstraintError, Next, Progress, SharedConstraint, TokenMask};
use dualgrain_device::cases::Random;
use serde_json::Value;

use crate::grammar::Grammars;

const VOCAB_SIZE: usize = 8_192;
const END: u32 = 0;

/// Grammars of the bundled model's tokens, and chance.
pub struct Walks {
    pub grammars: Grammars,
    tokenizer: Arc<Tokenizer>,
    /// Tokens that end values.
    closing: Vec<u32>,
    random: Random,
    /// The longest time that a mask took.
    pub longest_mask: Duration,
}

impl Walks {
    pub fn new(seed: u64) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny");
        let tokenizer = Arc::new(Tokenizer::load(&folder, VOCAB_SIZE).unwrap());
        let closing = ["\"", "}", "]", "\"}", "\"]", "0", "\":", ":", ","];
        Self {
            grammars: Grammars::new(Arc::clone(&tokenizer), &[END]),
            closing: closing
                .iter()
                .filter_map(|text| tokenizer.token_id(text))
                .collect(),
            tokenizer,
            random: Random(seed),
            longest_mask: Duration::ZERO,
        }
    }

    /// Walks once, for at most so many tokens; whether the walk came to an end. Its text must be a value of the schema then.
    pub fn walk(&mut self, schema: &Value, constraint: &SharedConstraint, most: usize) -> bool {
        self.try_walk(schema, constraint, most).unwrap()
    }

    /// The same; a mask that costs too much ends the walk.
    ///
    /// # Errors
    /// What the constraint says of it.
    pub fn try_walk(
        &mut self,
        schema: &Value,
        constraint: &SharedConstraint,
        most: usize,
    ) -> Result<bool, ConstraintError> {
        let Some(text) = self.text(constraint, most)? else {
            return Ok(false);
        };
        let value = match serde_json::from_str::<Value>(&text) {
            Ok(value) => value,
            // JSON has numbers that no number format holds.
            Err(error) if error.to_string().contains("number out of range") => return Ok(true),
            Err(error) => panic!("{schema}: {text:?}: {error}"),
        };
        let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
        let validator = options.should_validate_formats(true).build(schema).unwrap();
        assert!(validator.is_valid(&value), "{schema}: {text}");
        Ok(true)
    }

    /// The text of a walk, where it came to its end.
    ///
    /// # Errors
    /// What the constraint says of it.
    pub fn text(
        &mut self,
        constraint: &SharedConstraint,
        most: usize,
    ) -> Result<Option<String>, ConstraintError> {
        let mut state = constraint.0.begin()?;
        let mut mask = TokenMask::new(VOCAB_SIZE);
        let mut tokens = Vec::new();
        while tokens.len() < most {
            mask.clear();
            let begun = Instant::now();
            let next = state.allow_next(&mut mask)?;
            self.longest_mask = self.longest_mask.max(begun.elapsed());
            assert!(!mask.allows(END));
            if next == Next::MayEnd && (mask.num_allowed() == 0 || self.random.below(3) == 0) {
                return Ok(Some(self.tokenizer.decode(&tokens, false).unwrap()));
            }
            let token = self.choose(&mask, tokens.len());
            tokens.push(token);
            if state.accept(token)? == Progress::Complete {
                return Ok(Some(self.tokenizer.decode(&tokens, false).unwrap()));
            }
        }
        Ok(None)
    }

    /// Any allowed token; one that ends a value more often as the text grows.
    fn choose(&mut self, mask: &TokenMask, len: usize) -> u32 {
        let closing: Vec<u32> = self
            .closing
            .iter()
            .copied()
            .filter(|&token| mask.allows(token))
            .collect();
        if !closing.is_empty() && self.random.below(100) < 25 + len {
            return closing[self.random.below(closing.len())];
        }
        let allowed: Vec<u32> = (0..VOCAB_SIZE as u32)
            .filter(|&token| mask.allows(token))
            .collect();
        assert!(!allowed.is_empty(), "a mask without tokens");
        allowed[self.random.below(allowed.len())]
    }
}

/// Follows a constraint for a few tokens, until it ends or fails.
pub fn accept_all(constraint: &SharedConstraint, most: usize) {
    let Ok(mut state) = constraint.0.begin() else {
        return;
    };
    let mut mask = TokenMask::new(VOCAB_SIZE);
    for _ in 0..most {
        mask.clear();
        let next = state.allow_next(&mut mask);
        let first = (0..VOCAB_SIZE as u32).find(|&token| mask.allows(token));
        let (Ok(_), Some(token)) = (next, first) else {
            return;
        };
        if state.accept(token) != Ok(Progress::Open) {
            return;
        }
    }
}
