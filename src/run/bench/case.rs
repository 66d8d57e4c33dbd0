//! One combination of batch, prompt and generated tokens.

use anyhow::{Result, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::{Model, ModelConfig, Session, SessionLimits};

use crate::cli::units::bytes;

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

    /// Refuses what does not fit memory beside the model, instead of being killed by the system half-way.
    pub fn check_memory(&self, model: &Model<AnyDevice>) -> Result<()> {
        let limits = self.limits(model.device());
        let needed = Session::required_bytes(model, limits).unwrap_or(u64::MAX);
        if let Some(free_bytes) = model.device().free_bytes() {
            ensure!(
                needed <= free_bytes,
                "batch {} with {} tokens each needs {} beside the model, {} are free: take a smaller --batch",
                limits.num_sequences,
                limits.context_tokens,
                bytes(needed),
                bytes(free_bytes)
            );
        }
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
