//! A run under a budget of bits: which schemes its linears get.

use std::path::Path;

use dualgrain_device::Statistics;
use dualgrain_engine::{BlockSpec, Embedding, LinearId, ModelConfig, Role};
use dualgrain_format::LinearScheme;

use crate::budget::choice::{Budget, Choice};
use crate::budget::level::LEVELS;
use crate::budget::sensitivity::{measure, num_streams};
use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::options::QuantOptions;
use crate::run::context::RunContext;
use crate::run::journal::Journal;
use crate::stored_bytes::{float_bytes, stored_bytes};

/// The schemes for a run with a budget, from its journal or measured now; `None` without one.
///
/// # Errors
/// As [`measure`]; the journal cannot be written.
pub fn choose<D: Statistics>(
    run: &RunContext<'_, D>,
    journal: &Journal,
    embedding: &Embedding<D>,
    (tokens, windows): (&[u32], &Windows),
    (spill_above_bytes, spill_dir): (u64, &Path),
) -> Result<Option<Choice>, QuantError> {
    let Some(budget) = budget(run.config, run.options) else {
        return Ok(None);
    };
    if let Some(choice) = journal.choice() {
        return Ok(Some(choice));
    }
    let held_out = windows.held_out();
    let all = held_out.repeated(num_streams(run));
    let size_bytes = HiddenStates::<D>::residual_bytes(run.config, &all);
    let spill: Option<&Path> = (size_bytes > spill_above_bytes).then_some(spill_dir);
    let linears = measure(run, embedding, (tokens, &held_out), spill)?;
    let choice = Choice::new(linears, &budget);
    journal.keep_choice(&choice)?;
    Ok(Some(choice))
}

/// The options of a run with the schemes that were chosen; rules that a user gave count last, so they stay.
pub fn with_choice(options: &QuantOptions, choice: Option<&Choice>) -> QuantOptions {
    let mut options = options.clone();
    if let Some(choice) = choice {
        let (group_size, mut rules) = choice.rules();
        rules.append(&mut options.schemes);
        (options.group_size, options.schemes) = (group_size, rules);
    }
    options
}

/// Refuses a budget that the fewest bits do not fit.
///
/// # Errors
/// [`QuantError::Budget`].
pub fn check_budget(config: &ModelConfig, options: &QuantOptions) -> Result<(), QuantError> {
    let Some(budget) = budget(config, options) else {
        return Ok(());
    };
    let free = linears(config).filter(|(id, _)| rule_for(options, *id).is_none());
    let free_bytes: u64 = free.map(|(_, shape)| stored_bytes(shape, LEVELS[0], 0)).sum();
    let least = 8.0 * (budget.fixed_bytes + free_bytes) as f64 / budget.num_weights.max(1) as f64;
    // A budget that was written with three digits after the point, as sizes are said, means them.
    match budget.bits >= least - 0.000_5 {
        true => Ok(()),
        false => Err(QuantError::Budget {
            got: budget.bits,
            least,
        }),
    }
}

/// What the options say of bits; `None` where they say nothing.
fn budget(config: &ModelConfig, options: &QuantOptions) -> Option<Budget> {
    let fixed = linears(config).filter_map(|(id, shape)| Some((rule_for(options, id)?, shape)));
    let fixed_bytes = fixed.map(|(scheme, shape)| stored_bytes(shape, scheme, float_bytes(config)));
    Some(Budget {
        bits: options.bits?,
        num_weights: linears(config).map(|(_, (n, k))| (n * k) as u64).sum(),
        fixed_bytes: fixed_bytes.sum(),
    })
}

/// The scheme that a rule gives a linear.
fn rule_for(options: &QuantOptions, id: LinearId) -> Option<LinearScheme> {
    let is_covered = options.schemes.iter().any(|rule| rule.covers(id));
    is_covered.then(|| options.scheme(id))
}

/// The linears of all blocks and their shapes.
fn linears(config: &ModelConfig) -> impl Iterator<Item = (LinearId, (usize, usize))> {
    let spec = BlockSpec::new(config, 0);
    let shapes: Vec<(Role, (usize, usize))> = spec
        .linears
        .values()
        .map(|linear| (linear.id.role, (linear.n, linear.k)))
        .collect();
    (0..config.num_layers).flat_map(move |layer| {
        let shapes = shapes.clone();
        shapes
            .into_iter()
            .map(move |(role, shape)| (LinearId::dense(layer, role), shape))
    })
}
