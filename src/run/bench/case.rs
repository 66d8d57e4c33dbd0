//! One combination of batch, prompt and generated tokens.

use anyhow::{Result, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::{ModelConfig, SessionLimits};

/// One combination to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each prompt; 0 times decoding alone.
    pub prompt_tokens: usize,
    /// Tokens generated after each; 0 times prompts alone.
    pub generate_tokens: usize,
}

impl Case {
    /// What a session needs for all sequences at once.
    pub fn limits(&self, device: &AnyDevice) -> SessionLimits {
        let context_tokens = self.prompt_tokens + self.generate_tokens;
        let limits = SessionLimits::new(self.batch, context_tokens, device.step_tokens().max(self.batch));
        // The scheduler keeps a 32nd of the pages free: with as many more all sequences run at once.
        let num_pages = self.batch * limits.pages_per_sequence();
        SessionLimits {
            num_pages: Some(num_pages + num_pages / 31 + 1),
            ..limits
        }
    }

    /// Refuses what the model can not do, before anything is loaded.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let (prompt, generate) = (self.prompt_tokens, self.generate_tokens);
        ensure!(
            prompt + generate > 0,
            "0 prompt and 0 generated tokens leave nothing to time"
        );
        ensure!(
            prompt + generate <= config.max_positions,
            "{prompt} prompt and {generate} generated tokens do not fit the model's {} positions",
            config.max_positions
        );
        Ok(())
    }

    /// In words.
    pub fn text(&self) -> String {
        format!(
            "batch {}, {} prompt and {} generated tokens",
            self.batch, self.prompt_tokens, self.generate_tokens
        )
    }
}
