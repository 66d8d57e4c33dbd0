//! Logits and log-likelihoods of given tokens.
//!
//! By what scores tasks (`dualgrain::evaluate`): sequences run on a session of their own, logits are read as their steps end, and
//! log-probabilities are summed in f64 in the order of the tokens. What shares a step changes no bit, so both give the same sums.

use std::collections::HashMap;
use std::sync::Arc;

use dualgrain::engine::SessionError;
use dualgrain::engine::evaluate::{ScoredRows, Scorer, argmax, log_probability};
use dualgrain::{AnyDevice, Model};
use pyo3::prelude::*;

use crate::errors::{ArgumentError, exception};
use crate::watch::Watch;

/// Sum of log-probabilities, and whether every token is the likeliest.
pub type Scored = (f64, bool);

fn scorer(model: &Arc<Model<AnyDevice>>, longest: usize) -> PyResult<Scorer<AnyDevice>> {
    let most = model.config().max_positions;
    if longest > most {
        return Err(ArgumentError::new_err(format!(
            "expected at most {most} tokens in a sequence (the model's positions), got {longest}"
        )));
    }
    Scorer::for_sequences(model, longest).map_err(exception)
}

/// The rows of the next step in parts that a buffer holds; `None` when no sequence is left.
fn step(scorer: &mut Scorer<AnyDevice>) -> PyResult<Option<Vec<ScoredRows>>> {
    let count = scorer.num_rows();
    let step = scorer.step().map_err(exception)?;
    Ok(step.map(|step| step.rows.iter().flat_map(|rows| rows.parts(count)).collect()))
}

/// Logits `[tokens.len() - first, vocab]` after the tokens from `first` on.
pub fn logits(
    model: &Arc<Model<AnyDevice>>,
    tokens: &[u32],
    first: usize,
    watch: &Watch,
) -> PyResult<Vec<f32>> {
    if first >= tokens.len() {
        return Err(ArgumentError::new_err(format!(
            "first: expected an index below {}, the number of tokens, got {first}",
            tokens.len()
        )));
    }
    let mut scorer = scorer(model, tokens.len())?;
    scorer.admit(tokens, first).map_err(exception)?;
    let mut all = Vec::with_capacity((tokens.len() - first) * scorer.vocab_size());
    while let Some(parts) = step(&mut scorer)? {
        for rows in &parts {
            all.extend_from_slice(scorer.logits(rows).map_err(exception)?);
        }
        watch.look()?;
    }
    Ok(all)
}

/// Of each sequence: the sum of the log-probabilities of the tokens from an index on, and whether each is the likeliest.
pub fn loglikelihoods(
    model: &Arc<Model<AnyDevice>>,
    sequences: &[(Vec<u32>, usize)],
    watch: &Watch,
) -> PyResult<Vec<Scored>> {
    let vocab_size = model.config().vocab_size;
    check(sequences, vocab_size)?;
    // Nothing is scored after a last token, so it is not run.
    let longest = sequences
        .iter()
        .map(|(tokens, _)| tokens.len() - 1)
        .max()
        .unwrap_or(1);
    let mut scorer = scorer(model, longest)?;
    let mut places = HashMap::new();
    for (place, (tokens, start)) in sequences.iter().enumerate() {
        let id = scorer.admit(&tokens[..tokens.len() - 1], start - 1);
        places.insert(id.map_err(exception)?, place);
    }
    let mut scored = vec![(0.0, true); sequences.len()];
    let mut read = 0;
    let total = sequences
        .iter()
        .map(|(tokens, start)| (tokens.len() - start) as u64)
        .sum();
    while let Some(parts) = step(&mut scorer)? {
        for rows in &parts {
            let place = places[&rows.id];
            let targets = &sequences[place].0[rows.positions.start + 1..];
            let values = scorer.log_probabilities(rows).map_err(exception)?;
            for (at, (row, &target)) in values.chunks_exact(vocab_size).zip(targets).enumerate() {
                let position = rows.positions.start + 1 + at;
                let told = || (format!("sequence {place}"), position);
                scored[place].0 += log_probability(row, target, told).map_err(exception)?;
                scored[place].1 &= argmax(row) == target as usize;
                read += 1;
            }
        }
        watch.tell("scoring", read, total)?;
    }
    Ok(scored)
}

/// Refuses sequences of which nothing can be scored.
fn check(sequences: &[(Vec<u32>, usize)], vocab_size: usize) -> PyResult<()> {
    for (index, (tokens, start)) in sequences.iter().enumerate() {
        if !(1..tokens.len()).contains(start) {
            return Err(ArgumentError::new_err(format!(
                "sequence {index}: expected a first scored token from 1 to {}, got {start} of {} tokens",
                tokens.len().saturating_sub(1),
                tokens.len()
            )));
        }
        if let Some(&got) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            let outside = SessionError::Token { got, vocab_size };
            return Err(ArgumentError::new_err(format!("sequence {index}: {outside}")));
        }
    }
    Ok(())
}
