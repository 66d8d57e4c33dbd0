//! Splits the rows of the log into those to learn from and those to test on.

use std::collections::BTreeMap;

use crate::trees::Random;

/// Parts that runs or shapes are dealt into.
const FOLDS: usize = 5;

/// Share of rows a random split tests on.
const TEST_SHARE: f64 = 0.2;

/// Numbers from 0 for keys, in order of their first occurrence.
pub(crate) fn numbers(keys: impl Iterator<Item = String>) -> Vec<u32> {
    let mut known = BTreeMap::new();
    keys.map(|key| {
        let next = known.len() as u32;
        *known.entry(key).or_insert(next)
    })
    .collect()
}

/// Rows to test on: a fifth at random where each is its own kind, else each fifth of the kinds in turn.
pub(crate) fn tests(kinds: &[u32], seed: u64) -> Vec<Vec<bool>> {
    let distinct = kinds.iter().collect::<std::collections::BTreeSet<_>>().len();
    if distinct == kinds.len() {
        let mut test = vec![false; kinds.len()];
        let count = (kinds.len() as f64 * TEST_SHARE) as usize;
        let drawn = Random::new(seed, 5 << 32).sample(kinds.len(), count);
        drawn.into_iter().for_each(|at| test[at] = true);
        return vec![test];
    }
    let last = kinds.iter().max().map_or(0, |&last| last as usize);
    let mut fold_of: Vec<usize> = (0..=last).map(|kind| kind % FOLDS).collect();
    Random::new(seed, 6 << 32).shuffle(&mut fold_of);
    let fold = |fold: usize| kinds.iter().map(|&kind| fold_of[kind as usize] == fold).collect();
    (0..FOLDS).map(fold).collect()
}

/// Moves what lies outside the 1 % and 99 % quantiles onto them, as the paper does.
pub(crate) fn clip(values: &mut [f64], output: usize, outputs: usize) {
    let mut sorted: Vec<f64> = values.iter().skip(output).step_by(outputs).copied().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |fraction: f64| sorted[((sorted.len() - 1) as f64 * fraction).round() as usize];
    let (low, high) = (at(0.01), at(0.99));
    for value in values.iter_mut().skip(output).step_by(outputs) {
        *value = value.clamp(low, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_kind_are_tested_together_and_every_kind_once() {
        let kinds: Vec<u32> = (0..200).map(|row| row / 4).collect();
        let folds = super::tests(&kinds, 7);
        assert_eq!(folds.len(), FOLDS);
        for at in 0..200 {
            assert_eq!(folds.iter().filter(|test| test[at]).count(), 1);
            assert!(folds.iter().all(|test| test[at] == test[at / 4 * 4]));
        }
        let alone: Vec<u32> = (0..200).collect();
        assert_eq!(
            super::tests(&alone, 7)[0].iter().filter(|test| **test).count(),
            40
        );
    }

    #[test]
    fn clipping_moves_the_outermost_hundredths_of_one_target_only() {
        let mut values: Vec<f64> = (0..1000).flat_map(|i| [f64::from(i), f64::from(i)]).collect();
        clip(&mut values, 0, 2);
        assert_eq!(
            (values[0], values[1], values[1998], values[1999]),
            (10.0, 0.0, 989.0, 999.0)
        );
    }
}
