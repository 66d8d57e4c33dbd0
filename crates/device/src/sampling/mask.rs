//! Which tokens a sequence may take next.

/// A bit for every token of a vocabulary: whether it may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    /// `[ceil(vocab_size / 32)]`: token t is bit `t % 32` of word `t / 32`. Bits beyond the vocabulary are 0.
    words: Vec<u32>,
    vocab_size: usize,
}

impl TokenMask {
    /// Words of a mask for so many tokens.
    pub fn num_words(vocab_size: usize) -> usize {
        vocab_size.div_ceil(32)
    }

    /// No token is allowed.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            words: vec![0; Self::num_words(vocab_size)],
            vocab_size,
        }
    }

    /// Forbids every token.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Takes over the bits of `words`; tokens beyond its end are forbidden, bits beyond the vocabulary are dropped.
    pub fn copy_from(&mut self, words: &[u32]) {
        self.clear();
        let len = words.len().min(self.words.len());
        self.words[..len].copy_from_slice(&words[..len]);
        let beyond = self.vocab_size % 32;
        if beyond > 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << beyond) - 1;
        }
    }

    /// Allows a token; one outside the vocabulary is not there to be allowed.
    pub fn allow(&mut self, token: u32) {
        if (token as usize) < self.vocab_size {
            self.words[token as usize / 32] |= 1 << (token % 32);
        }
    }

    /// Forbids a token.
    pub fn forbid(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }

    /// Whether a token is allowed.
    pub fn allows(&self, token: u32) -> bool {
        let word = self.words.get(token as usize / 32);
        word.is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// How many tokens are allowed.
    pub fn num_allowed(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The bits, `[ceil(vocab_size / 32)]`.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Makes the logits of forbidden tokens -inf. `logits` is `[vocab_size]`.
    pub fn apply(&self, logits: &mut [f32]) {
        for (word, logits) in self.words.iter().zip(logits.chunks_mut(32)) {
            if *word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_beyond_the_vocabulary_are_dropped_and_missing_words_forbid() {
        for vocab_size in [0, 1, 31, 32, 33, 64, 70] {
            let mut mask = TokenMask::new(vocab_size);
            assert_eq!(mask.num_allowed(), 0);
            mask.copy_from(&[u32::MAX; 4]);
            assert_eq!(mask.num_allowed(), vocab_size);
            mask.allow(vocab_size as u32);
            assert!(!mask.allows(vocab_size as u32));
            mask.copy_from(&[u32::MAX]);
            assert_eq!(mask.num_allowed(), vocab_size.min(32));
            mask.copy_from(&[]);
            assert_eq!(mask.num_allowed(), 0);
        }
    }

    #[test]
    fn forbidden_logits_become_impossible() {
        let mut mask = TokenMask::new(40);
        [0, 31, 39].into_iter().for_each(|token| mask.allow(token));
        let mut logits = vec![1.5; 40];
        mask.apply(&mut logits);
        let left: Vec<usize> = (0..40).filter(|&token| logits[token] == 1.5).collect();
        assert_eq!(left, [0, 31, 39]);
        assert!(
            logits
                .iter()
                .all(|&logit| logit == 1.5 || logit == f32::NEG_INFINITY)
        );
    }
}
