//! The answer: one cost for each batch size, with the items that it is a sum of.

use serde::Serialize;

use super::memory::Memory;
use super::scheme::Scheme;
use super::workload::Phase;
use crate::predict::Interval;

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkCost {
    /// The model's name.
    pub model: String,
    /// The machine, as it names itself.
    pub machine: String,
    /// Threads of a CPU; absent for a GPU.
    pub threads: Option<usize>,
    /// How linears are stored and multiplied.
    pub scheme: Scheme,
    /// The same for the output layer.
    pub head_scheme: Scheme,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens generated for each sequence; the prompt's last step gives the first.
    pub generate_tokens: usize,
    /// Tokens of a step of the prompt at most.
    pub step_tokens: usize,
    /// One answer for each batch size.
    pub batches: Vec<BatchCost>,
    /// What was assumed, in sentences.
    pub assumptions: Vec<String>,
}

impl NetworkCost {
    /// The machine, and how many of its threads.
    pub fn machine_words(&self) -> String {
        match self.threads {
            None => self.machine.clone(),
            Some(1) => format!("{} (1 thread)", self.machine),
            Some(threads) => format!("{} ({threads} threads)", self.machine),
        }
    }
}

/// The answer for one batch size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchCost {
    /// Sequences at once.
    pub batch: usize,
    /// From all prompts at once to the first token of each.
    pub time_to_first_token_s: Interval,
    /// Tokens a second of all sequences together while generating; absent when only the first token is asked for.
    pub decode_tokens_per_s: Option<Interval>,
    /// From the prompts to the last token.
    pub total_time_s: Interval,
    /// Joules of a token while generating, the prompts left out as they are in `decode_tokens_per_s`; absent where the machine
    /// shows no energy, or only the first token is asked for.
    pub joules_per_token: Option<Interval>,
    /// Joules of the prompts by their tokens.
    pub prompt_joules_per_token: Option<Interval>,
    /// Joules from the prompts to the last token by all tokens generated.
    pub total_joules_per_token: Option<Interval>,
    /// Memory that is held.
    pub memory: Memory,
    /// The most expensive products of the whole run, first the worst.
    pub products: Vec<CostItem>,
    /// What is no product: estimates.
    pub estimates: Vec<CostItem>,
    /// Share of the whole time that estimates stand for.
    pub estimated_share: f64,
    /// Share of the whole time of products outside what was measured: that far, the intervals of the sums promise nothing.
    pub extrapolated_share: f64,
}

/// Something that costs time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostItem {
    /// `qkv`, `attention over the cache`, ...
    pub name: String,
    /// Reading the prompts or generating.
    pub phase: Phase,
    /// How often the whole run does it.
    pub count: usize,
    /// Sizes of a product; absent for estimates.
    pub shape: Option<[usize; 3]>,
    /// The kernel that would run it; empty for estimates.
    pub kernel: String,
    /// The kernel's size; empty for a library's.
    pub config: String,
    /// No measured product stands behind this line, and its interval is a pair of bounds.
    pub estimate: bool,
    /// The product lies outside what was measured: its interval promises nothing.
    pub extrapolated: bool,
    /// Seconds in the whole run.
    pub time_s: Interval,
    /// Share of the whole time.
    pub share: f64,
    /// Joules in the whole run.
    pub energy_j: Option<Interval>,
}
