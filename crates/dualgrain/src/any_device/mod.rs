//! The device a user chose, when the program runs: the CPU or a card.
//!
//! A model is written for any device and compiled for one type. This type is all devices at once: every operation goes to the
//! one that was chosen. The choice costs a comparison an operation, and the program holds the engine once.

#[macro_use]
mod dispatch;

mod buffers;
mod choice;
mod operations;
mod statistics;

use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
#[cfg(feature = "cuda")]
use dualgrain_cuda::{CudaDevice, Gpu};

#[cfg(feature = "cuda")]
use dualgrain_device::StepLimits;
use dualgrain_engine::{ModelConfig, SessionLimits};
use dualgrain_threads::Pool;

use crate::memory::memory;

pub use choice::{ChosenDevice, DeviceChoice, DeviceChoiceError};

/// Tokens of a step of prompts on a CPU, where nothing else is said.
pub const CPU_STEP_TOKENS: usize = 512;
/// The same on a card.
pub const CARD_STEP_TOKENS: usize = 2048;

/// The CPU or a card.
pub enum AnyDevice {
    /// The CPU.
    Cpu(CpuDevice),
    /// An NVIDIA card.
    #[cfg(feature = "cuda")]
    Cuda(Box<Card>),
}

/// A card with the host's threads, which do what is no operation of a model.
#[cfg(feature = "cuda")]
pub struct Card {
    device: CudaDevice,
    host: CpuDevice,
}

/// More threads than these read no faster.
#[cfg(feature = "cuda")]
const MOST_BLOCKS_AT_ONCE: usize = 8;

/// Name of each kind of operation, how many there were, and their seconds on the card.
pub type OperationTimes = Vec<(&'static str, usize, f64)>;

impl AnyDevice {
    /// The CPU with its threads, where it is that.
    pub fn cpu(&self) -> Option<&CpuDevice> {
        match self {
            Self::Cpu(device) => Some(device),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => None,
        }
    }

    /// The card, where it is one.
    #[cfg(feature = "cuda")]
    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(card) => Some(card.device.gpu()),
        }
    }

    /// The host's threads.
    pub fn pool(&self) -> &Arc<Pool> {
        match self {
            Self::Cpu(device) => device.pool(),
            #[cfg(feature = "cuda")]
            Self::Cuda(card) => card.host.pool(),
        }
    }

    /// Runs `run`; on a card each kind of operation in it is timed: name, how many there were, seconds together.
    ///
    /// # Errors
    /// The card failed.
    pub fn operation_times<T>(&self, run: impl FnOnce() -> T) -> Result<(T, OperationTimes), crate::Error> {
        match self {
            Self::Cpu(_) => Ok((run(), Vec::new())),
            #[cfg(feature = "cuda")]
            Self::Cuda(card) => {
                let (done, times) = card.device.operation_times(run)?;
                let times = times.into_iter();
                Ok((
                    done,
                    times
                        .map(|(name, time)| (name, time.count, time.time_s))
                        .collect(),
                ))
            }
        }
    }

    /// What its kernels are made of: an instruction set of the CPU, or the architecture of a card.
    pub fn kernels(&self) -> String {
        match self {
            Self::Cpu(device) => device.isa().name().to_owned(),
            #[cfg(feature = "cuda")]
            Self::Cuda(card) => card.device.gpu().info().arch(),
        }
    }

    /// Threads of the host that share its work; a card has one that launches.
    pub fn num_threads(&self) -> usize {
        self.cpu().map_or(1, CpuDevice::num_threads)
    }

    /// Prompt tokens that are worth running in one step: a card has more to fill.
    pub fn step_tokens(&self) -> usize {
        match self {
            Self::Cpu(_) => CPU_STEP_TOKENS,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => CARD_STEP_TOKENS,
        }
    }

    /// Tokens of a step beside which streams still come evenly (see [`SessionLimits::stream_step_tokens`]).
    pub fn stream_step_tokens(&self) -> usize {
        match self {
            Self::Cpu(device) => (64 * device.num_threads()).clamp(128, 512),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => self.step_tokens(),
        }
    }

    /// Limits of a server of `num_sequences` sequences at once: all of them can decode in one step, and a step of prompts is as long as
    /// the device fills. `stream_step_tokens` are those of a step while an answer streams, by itself so many that streams come evenly.
    pub fn serving_limits(
        &self,
        num_sequences: usize,
        context_tokens: usize,
        stream_step_tokens: Option<usize>,
    ) -> SessionLimits {
        let most = self.step_tokens().max(num_sequences);
        let stream_step_tokens = match stream_step_tokens {
            Some(tokens) => tokens.max(num_sequences),
            None => most.min(self.stream_step_tokens() + num_sequences),
        };
        SessionLimits {
            stream_step_tokens,
            ..SessionLimits::new(num_sequences, context_tokens, most.max(stream_step_tokens))
        }
    }

    /// Blocks of a model that are worth reading and packing at once: the CPU's threads share the work on one already, and a card
    /// takes blocks faster than one thread makes them.
    ///
    /// A block of `block_bytes` is on the host up to four times: read, as wider floats, joined and packed.
    pub fn blocks_at_once(&self, block_bytes: u64) -> usize {
        match self {
            Self::Cpu(_) => {
                let _ = block_bytes;
                1
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(card) => {
                let free_bytes = memory().map_or(0, |memory| memory.available_bytes);
                let fitting = free_bytes / block_bytes.saturating_mul(4).max(1);
                let most = card.host.num_threads().min(MOST_BLOCKS_AT_ONCE);
                most.min(fitting as usize).max(1)
            }
        }
    }

    /// Bytes that are free; `None` where the system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        match self {
            Self::Cpu(_) => memory().map(|memory| memory.available_bytes),
            #[cfg(feature = "cuda")]
            Self::Cuda(card) => card.device.gpu().free_bytes().ok().map(|bytes| bytes as u64),
        }
    }

    /// Bytes that the device's kernels need beside weights, cache and the buffers of a step.
    pub(crate) fn workspace_bytes(&self, limits: &SessionLimits, config: &ModelConfig) -> u64 {
        match self {
            Self::Cpu(_) => {
                let _ = (limits, config);
                0
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => {
                let step = StepLimits {
                    tokens: limits.step_tokens,
                    sequences: limits.num_sequences,
                    pages_per_sequence: limits.pages_per_sequence(),
                };
                let heads = (config.num_heads, config.head_dim);
                dualgrain_cuda::workspace_bytes(step, heads, config.vocab_size)
            }
        }
    }

    /// Bytes that a model can take: what is free, and swap space where there is some.
    pub(crate) fn room_bytes(&self) -> Option<u64> {
        let swap_bytes = match self {
            Self::Cpu(_) => memory()?.swap_bytes,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => 0,
        };
        Some(self.free_bytes()?.saturating_add(swap_bytes))
    }
}
