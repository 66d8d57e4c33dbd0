//! The workload that is priced: how many sequences, how long, in which scheme, and the steps that follow from these.

use dualgrain_device::CacheFormat;
use dualgrain_format::GroupSize;
use serde::Serialize;

use super::network::Network;
use super::scheme::Scheme;
use crate::error::PerfError;

/// What is to be priced.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Batch sizes, each priced on its own.
    pub batches: Vec<usize>,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens to generate for each sequence.
    pub generate_tokens: usize,
    /// Tokens a step of the prompt runs at most.
    pub step_tokens: usize,
    /// Linears of the blocks.
    pub scheme: Scheme,
    /// The output layer.
    pub head_scheme: Scheme,
    /// Weights along K that share a group scale (4-bit weights).
    pub group_size: GroupSize,
    /// How keys and values are kept.
    pub kv_cache: CacheFormat,
}

impl Workload {
    /// Refuses what no model can do.
    ///
    /// # Errors
    /// A count of zero, or more positions than the model was made for.
    pub fn check(&self, network: &Network) -> Result<(), PerfError> {
        let zero = [
            ("--batch", self.batches.iter().copied().min().unwrap_or(0)),
            ("--prompt", self.prompt_tokens),
            ("--generate", self.generate_tokens),
            ("--step-tokens", self.step_tokens),
        ];
        if let Some((what, _)) = zero.into_iter().find(|(_, count)| *count == 0) {
            return Err(PerfError::Shape {
                what,
                expected: "at least 1".to_owned(),
                got: "0".to_owned(),
            });
        }
        let needed = self.prompt_tokens.saturating_add(self.generate_tokens);
        if needed > network.max_positions {
            return Err(PerfError::Shape {
                what: "--prompt plus --generate",
                expected: format!(
                    "at most {} (the positions that {} was made for)",
                    network.max_positions, network.name
                ),
                got: needed.to_string(),
            });
        }
        Ok(())
    }

    /// Steps after the first token.
    pub fn decode_steps(&self) -> usize {
        self.generate_tokens.saturating_sub(1)
    }

    /// Steps of a phase: (tokens of all sequences together, how many such steps).
    pub(crate) fn steps(&self, batch: usize, phase: Phase) -> Vec<(usize, usize)> {
        if phase == Phase::Decode {
            return vec![(batch, self.decode_steps())];
        }
        let tokens = batch.saturating_mul(self.prompt_tokens);
        let (whole, rest) = (tokens / self.step_tokens, tokens % self.step_tokens);
        [(self.step_tokens, whole), (rest, usize::from(rest > 0))]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// How often a phase runs the output layer.
    pub(crate) fn head_steps(&self, phase: Phase) -> usize {
        match phase {
            Phase::Prompt => 1,
            Phase::Decode => self.decode_steps(),
        }
    }
}

/// When a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reading the prompts.
    Prompt,
    /// One token a sequence and step.
    Decode,
}

impl Phase {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Decode => "decode",
        }
    }
}
