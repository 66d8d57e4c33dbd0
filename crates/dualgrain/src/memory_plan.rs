//! What a model takes of a device's memory, known before its weights are read.

use std::fmt;

use dualgrain_device::PAGE_TOKENS;
use dualgrain_engine::SessionLimits;

use crate::units::bytes;

/// What a model takes of a device's memory, part by part, and what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The device.
    pub device: String,
    /// Packed weights.
    pub weight_bytes: u64,
    /// Keys and values.
    pub cache_bytes: u64,
    /// Buffers of a step, logits, what the device's kernels need.
    pub buffer_bytes: u64,
    /// What it may take in all; `None` where the system does not say.
    pub room_bytes: Option<u64>,
    /// The sequences and contexts it is made for.
    pub limits: SessionLimits,
    /// Keys and values of a token, all layers.
    pub token_bytes: u64,
}

impl MemoryPlan {
    /// The plan for another model to be there at the same time.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        self.weight_bytes = self.weight_bytes.saturating_add(other.weight_bytes);
        self.cache_bytes = self.cache_bytes.saturating_add(other.cache_bytes);
        self.buffer_bytes = self.buffer_bytes.saturating_add(other.buffer_bytes);
        self.token_bytes = self.token_bytes.saturating_add(other.token_bytes);
        self
    }

    /// All parts together.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes
            .saturating_add(self.cache_bytes)
            .saturating_add(self.buffer_bytes)
    }

    /// Tokens whose keys and values fit beside the rest, in whole pages; `None` where the system does not say what is free.
    pub fn most_cached_tokens(&self) -> Option<u64> {
        let pages = self.left_bytes()? / (self.token_bytes * PAGE_TOKENS as u64).max(1);
        Some(pages * PAGE_TOKENS as u64)
    }

    /// Bytes that weights and buffers leave to the cache.
    fn left_bytes(&self) -> Option<u64> {
        let others = self.weight_bytes.saturating_add(self.buffer_bytes);
        Some(self.room_bytes?.saturating_sub(others))
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    /// The plan itself, which says in words what it needs and what would fit.
    pub fn check(self) -> Result<Self, Box<Self>> {
        match self.room_bytes {
            Some(room) if self.total_bytes() > room => Err(Box::new(self)),
            _ => Ok(self),
        }
    }

    /// What would fit, in words.
    fn hint(&self) -> String {
        let tokens = self.most_cached_tokens().unwrap_or(u64::MAX);
        // Whole pages, and those that the scheduler keeps free.
        let sequence_bytes = self
            .cache_bytes
            .div_ceil((self.limits.num_sequences as u64).max(1));
        let left_bytes = self.left_bytes().unwrap_or(u64::MAX);
        match (tokens, left_bytes / sequence_bytes.max(1)) {
            (0, _) if self.weight_bytes > self.room_bytes.unwrap_or(u64::MAX) => {
                "not even the model fits: take a smaller model or another device".to_owned()
            }
            (0, _) => "fewer sequences or shorter steps would fit".to_owned(),
            (tokens, 0) => format!("one sequence of {tokens} tokens would fit"),
            (_, sequences) => format!("{sequences} such sequences would fit"),
        }
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionLimits {
            num_sequences,
            context_tokens,
            ..
        } = self.limits;
        write!(
            f,
            "weights {}, cache {} for {num_sequences} x {context_tokens} tokens, buffers {}: {}",
            bytes(self.weight_bytes),
            bytes(self.cache_bytes),
            bytes(self.buffer_bytes),
            bytes(self.total_bytes())
        )?;
        let Some(room_bytes) = self.room_bytes else {
            return Ok(());
        };
        write!(f, " of {} on {}", bytes(room_bytes), self.device)?;
        match self.total_bytes() <= room_bytes {
            true => write!(
                f,
                "; up to {} tokens fit the cache",
                self.most_cached_tokens().unwrap_or(0)
            ),
            false => write!(f, "; {}", self.hint()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(room_bytes: u64) -> MemoryPlan {
        MemoryPlan {
            device: "cuda:0".to_owned(),
            weight_bytes: 5_000_000_000,
            cache_bytes: 4_000_000_000,
            buffer_bytes: 1_000_000_000,
            room_bytes: Some(room_bytes),
            limits: SessionLimits::new(4, 10_000, 512),
            token_bytes: 100_000,
        }
    }

    #[test]
    fn what_fits_says_how_much_more_would() {
        let text = plan(20_000_000_000).check().unwrap().to_string();
        assert!(text.contains("10.00 GB of 20.00 GB on cuda:0"), "{text}");
        assert!(text.contains("up to 139968 tokens"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        for (room_bytes, hint) in [
            (8_000_000_000, "2 such sequences would fit"),
            (6_500_000_000, "one sequence of 4992 tokens would fit"),
            (5_500_000_000, "fewer sequences or shorter steps would fit"),
            (4_500_000_000, "not even the model fits"),
        ] {
            let error = plan(room_bytes).check().unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
            assert!(
                error.contains("weights 5.00 GB") && error.contains("cache 4.00 GB"),
                "{error}"
            );
        }
        assert!(plan(10_000_000_000).check().is_ok());
    }
}
