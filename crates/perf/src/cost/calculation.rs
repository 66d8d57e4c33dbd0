//! What a language model will cost on a machine: time to the first token, tokens a second, joules a token, memory.
//!
//! The products of every step are priced by a fitted model, each by the kernel and size it would choose. Everything else of a
//! step is an estimate from its bytes and operations and the machine's measured ceilings, and says so ([`Line::estimate`]).

use serde::Serialize;

use super::memory::Memory;
use super::network::{Linear, Network};
use super::price::{Price, Prices};
use super::sum::{Sum, scaled};
use super::workload::{Request, Scheme};
use super::{estimate, threads};
use crate::error::PerfError;
use crate::machine::{Machine, MachineKind};
use crate::predict::Interval;

/// Products that are listed with their share.
const MOST_EXPENSIVE: usize = 10;

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
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

impl Cost {
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
    pub products: Vec<Line>,
    /// What is no product: estimates.
    pub estimates: Vec<Line>,
    /// Share of the whole time that estimates stand for.
    pub estimated_share: f64,
    /// Share of the whole time of products outside what was measured: that far, the intervals of the sums promise nothing.
    pub extrapolated_share: f64,
}

/// Something that costs time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
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

/// Prices `request` for `network` on `machine`, whose products cost `prices`.
///
/// # Errors
/// A request that cannot be ([`Request::check`]), a product that the prices know nothing of.
pub fn cost(
    network: &Network,
    machine: &Machine,
    request: &Request,
    prices: &mut Prices<'_>,
) -> Result<Cost, PerfError> {
    request.check(network)?;
    let threads = prices.threads();
    let limited = threads.map(|threads| threads::limited(machine, threads));
    let limited = limited.as_ref().unwrap_or(machine);
    let batches = request
        .batches
        .iter()
        .map(|&batch| batch_cost(network, limited, request, batch, prices));
    Ok(Cost {
        model: network.name.clone(),
        machine: machine.name.clone(),
        threads,
        scheme: request.scheme,
        head_scheme: request.head_scheme,
        prompt_tokens: request.prompt_tokens,
        generate_tokens: request.generate_tokens,
        step_tokens: request.step_tokens,
        batches: batches.collect::<Result<_, _>>()?,
        assumptions: assumptions(machine, limited, request, threads),
    })
}

fn batch_cost(
    network: &Network,
    machine: &Machine,
    request: &Request,
    batch: usize,
    prices: &mut Prices<'_>,
) -> Result<BatchCost, PerfError> {
    let mut lines = Vec::new();
    for phase in [Phase::Prompt, Phase::Decode] {
        let mut products = product_lines(network, request, batch, phase, prices)?;
        let estimates = estimate::lines(network, machine, request, batch, phase, &products);
        products.extend(estimates);
        lines.extend(products);
    }
    let total = time(&lines, None);
    for line in &mut lines {
        line.share = line.time_s.value / total.value;
    }
    lines.sort_by(|a, b| b.time_s.value.total_cmp(&a.time_s.value));
    let generated = batch * request.generate_tokens;
    let decoded = batch * request.decode_steps();
    let each = |energy: Option<Interval>, tokens: usize| {
        energy
            .filter(|_| tokens > 0)
            .map(|energy| scaled(energy, 1.0 / tokens as f64))
    };
    let decode_tokens_per_s = (decoded > 0).then(|| time(&lines, Some(Phase::Decode)).rate(decoded as f64));
    let (estimates, products): (Vec<_>, Vec<_>) = lines.iter().cloned().partition(|line| line.estimate);
    Ok(BatchCost {
        batch,
        time_to_first_token_s: time(&lines, Some(Phase::Prompt)),
        decode_tokens_per_s,
        total_time_s: total,
        joules_per_token: each(energy(&lines, Some(Phase::Decode)), decoded),
        prompt_joules_per_token: each(energy(&lines, Some(Phase::Prompt)), batch * request.prompt_tokens),
        total_joules_per_token: each(energy(&lines, None), generated),
        memory: Memory::new(network, machine, request, batch),
        estimated_share: estimates.iter().map(|line| line.share).sum(),
        // A sum of nothing would be -0.
        extrapolated_share: products
            .iter()
            .filter(|line| line.extrapolated)
            .fold(0.0, |sum, line| sum + line.share),
        products: products.into_iter().take(MOST_EXPENSIVE).collect(),
        estimates,
    })
}

/// Every product of a phase, those of equal shape in one line.
pub(crate) fn product_lines(
    network: &Network,
    request: &Request,
    batch: usize,
    phase: Phase,
    prices: &mut Prices<'_>,
) -> Result<Vec<Line>, PerfError> {
    let mut lines = Vec::new();
    for (step_tokens, num_steps) in request.steps(batch, phase) {
        for linear in &network.linears {
            // Logits are wanted of each sequence's last token only, and of a prompt's last step only.
            let (m, num_steps, scheme) = match linear.head {
                true => (batch, request.head_steps(phase), request.head_scheme),
                false => (step_tokens, num_steps, request.scheme),
            };
            let count = linear.count * num_steps;
            let seen = |line: &Line| line.name == linear.name && line.shape == Some([m, linear.n, linear.k]);
            if count > 0 && !lines.iter().any(seen) {
                let price = prices.of(scheme, [m, linear.n, linear.k]);
                let price = price.map_err(|error| unpriced(linear, m, scheme, error))?;
                lines.push(product_line(linear, m, phase, count, &price));
            }
        }
    }
    Ok(lines)
}

fn unpriced(linear: &Linear, m: usize, scheme: Scheme, error: PerfError) -> PerfError {
    let Linear { name, n, k, head, .. } = linear;
    let option = if *head { "--lm-head" } else { "--scheme" };
    PerfError::Unpriced {
        what: format!("{name} ({m}x{n}x{k} in {scheme}; another {option} may do)"),
        source: Box::new(error),
    }
}

fn product_line(linear: &Linear, m: usize, phase: Phase, count: usize, price: &Price) -> Line {
    let total = |one: Interval| scaled(one, count as f64);
    Line {
        name: linear.name.clone(),
        phase,
        count,
        shape: Some([m, linear.n, linear.k]),
        kernel: price.kernel.clone(),
        config: price.config.clone(),
        estimate: false,
        extrapolated: price.prediction.extrapolated,
        time_s: total(price.prediction.time_s),
        share: 0.0,
        energy_j: price.prediction.energy_j.map(total),
    }
}

fn time(lines: &[Line], phase: Option<Phase>) -> Interval {
    let wanted = lines
        .iter()
        .filter(|line| phase.is_none_or(|phase| line.phase == phase));
    let mut sum = Sum::default();
    wanted.for_each(|line| sum.add(&line.kernel, line.time_s));
    sum.interval()
}

/// `None` when a line has no energy.
fn energy(lines: &[Line], phase: Option<Phase>) -> Option<Interval> {
    let mut wanted = lines
        .iter()
        .filter(|line| phase.is_none_or(|phase| line.phase == phase));
    let sum = wanted.try_fold(Sum::default(), |mut sum, line| {
        sum.add(&line.kernel, line.energy_j?);
        Some(sum)
    })?;
    Some(sum.interval())
}

fn assumptions(
    machine: &Machine,
    limited: &Machine,
    request: &Request,
    threads: Option<usize>,
) -> Vec<String> {
    let runs = match machine.kind {
        MachineKind::Gpu => {
            "Costs on a GPU are those of the products as they were measured on that card, put together; this project's engine runs \
             models on CPUs so far."
        }
        MachineKind::Cpu => "Costs are those of the products as measured on that machine, put together.",
    };
    let mut all = vec![
        runs.to_owned(),
        format!(
            "All prompts start together and are read in steps of at most {} tokens; logits are computed for the last token of each \
             prompt. The last step of a prompt gives the first token, every later one takes a step of its own.",
            request.step_tokens
        ),
        "Intervals of products are the fitted model's 90 % intervals. In sums the errors of one kernel are taken as fully \
         correlated (they add up), those of different kernels as independent (root of the sum of squares)."
            .to_owned(),
        estimate::assumption(limited, request),
    ];
    all.extend(threads.and_then(|threads| threads::assumption(machine, threads)));
    all
}
