//! Which linear gets which scheme, so that a budget of bits buys the least divergence.
//!
//! Every linear goes from few bits to more along the steps that save the most divergence for a bit, and of all linears' steps the best
//! come first, as long as the budget has room. Where one scheme for all linears is as good, it is taken instead: folders of one scheme
//! are simpler and kernels meet fewer kinds of products.

use dualgrain_format::{GroupSize, LinearScheme};
use serde::{Deserialize, Serialize};

use crate::budget::level::LEVELS;
use crate::budget::sensitivity::Sensitivity;
use crate::schemes::SchemeRule;
use crate::stored_bytes::stored_bytes;

/// One scheme for all is taken where it is expected to diverge at most this many times as far as the best mixture.
const UNIFORM_MARGIN: f64 = 1.02;

/// The schemes of a run under a budget, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Bits a weight that were allowed.
    pub budget_bits: f64,
    /// Bits a weight that the block linears take, those with a scheme of their own among them.
    pub bits: f64,
    /// Whether one scheme for all linears was as good as any mixture.
    pub is_uniform: bool,
    /// The sum of what the linears are expected to add to the divergence when rounded to nearest, in nats.
    pub expected_divergence: f64,
    /// The same for every linear in 4 bits in groups of 128.
    pub divergence_of_fewest_bits: f64,
    /// Every linear that there was a choice for, in order of execution.
    pub linears: Vec<ChosenLinear>,
}

/// A linear and its scheme.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChosenLinear {
    /// What rounding it does.
    #[serde(flatten)]
    pub sensitivity: Sensitivity,
    /// The scheme it gets, as `--scheme` spells it.
    pub scheme: String,
}

/// What a budget is spent on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Bits a weight.
    pub bits: f64,
    /// Weights of all block linears.
    pub num_weights: u64,
    /// Bytes of the linears that have a scheme of their own.
    pub fixed_bytes: u64,
}

impl Budget {
    /// Bytes for the linears that there is a choice for.
    fn free_bytes(&self) -> u64 {
        let all = (self.bits * self.num_weights as f64 / 8.0).floor().max(0.0) as u64;
        all.saturating_sub(self.fixed_bytes)
    }

    fn bits_of(&self, bytes: u64) -> f64 {
        8.0 * (bytes + self.fixed_bytes) as f64 / self.num_weights.max(1) as f64
    }
}

impl Choice {
    /// The best schemes for `linears` under `budget`, which has room for all of them in the fewest bits.
    pub fn new(linears: Vec<Sensitivity>, budget: &Budget) -> Self {
        let mixed = mixture(&linears, budget.free_bytes());
        let uniform = (0..LEVELS.len()).map(|level| vec![level; linears.len()]);
        let uniform = uniform
            .filter(|levels| bytes_of(&linears, levels) <= budget.free_bytes())
            .min_by(|a, b| divergence_of(&linears, a).total_cmp(&divergence_of(&linears, b)));
        let good_enough = UNIFORM_MARGIN * divergence_of(&linears, &mixed);
        let uniform = uniform.filter(|levels| divergence_of(&linears, levels) <= good_enough);
        let is_uniform = uniform.is_some();
        let levels = uniform.unwrap_or(mixed);
        Self {
            budget_bits: budget.bits,
            bits: budget.bits_of(bytes_of(&linears, &levels)),
            is_uniform,
            expected_divergence: divergence_of(&linears, &levels),
            divergence_of_fewest_bits: divergence_of(&linears, &vec![0; linears.len()]),
            linears: linears
                .into_iter()
                .zip(&levels)
                .map(|(sensitivity, &level)| ChosenLinear {
                    sensitivity,
                    scheme: LEVELS[level].to_string(),
                })
                .collect(),
        }
    }

    /// The usual group size, and the rules that give every other linear its scheme.
    pub fn rules(&self) -> (GroupSize, Vec<SchemeRule>) {
        let scheme = |linear: &ChosenLinear| linear.scheme.parse::<LinearScheme>().ok();
        let first = self.linears.first().and_then(scheme);
        let group_size = first
            .and_then(LinearScheme::group_size)
            .filter(|_| self.is_uniform)
            .unwrap_or(GroupSize::Along(128));
        let usual = LinearScheme::w4(group_size);
        let others = self.linears.iter().filter(|linear| scheme(linear) != Some(usual));
        let rule = |linear: &ChosenLinear| {
            let Sensitivity { layer, role, .. } = &linear.sensitivity;
            format!("{layer}.{role}={}", linear.scheme).parse().ok()
        };
        (group_size, others.filter_map(rule).collect())
    }

    /// How many linears have each scheme, in words.
    pub fn summary(&self) -> String {
        let count = |scheme: &LinearScheme| {
            let name = scheme.to_string();
            let count = self.linears.iter().filter(|linear| linear.scheme == name).count();
            (count > 0).then(|| format!("{count} in {name}"))
        };
        let counts: Vec<String> = LEVELS.iter().filter_map(count).collect();
        format!("{:.3} bits a weight: {}", self.bits, counts.join(", "))
    }
}

/// A step of one linear to a scheme with more bits.
struct Step {
    linear: usize,
    from: usize,
    to: usize,
    bytes: u64,
    /// Divergence that is saved for a byte.
    gain: f64,
}

/// A level for every linear.
fn mixture(linears: &[Sensitivity], mut room: u64) -> Vec<usize> {
    let mut levels = vec![0; linears.len()];
    room = room.saturating_sub(bytes_of(linears, &levels));
    let mut steps: Vec<Step> = (0..linears.len())
        .flat_map(|linear| steps_of(&linears[linear], linear))
        .collect();
    // Equal gains stay in order of execution: sorting is stable.
    steps.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    for step in steps {
        if levels[step.linear] == step.from && step.bytes <= room && step.gain > 0.0 {
            levels[step.linear] = step.to;
            room -= step.bytes;
        }
    }
    levels
}

/// The steps of a linear, each the best that can follow the one before it, so that gains fall.
fn steps_of(linear: &Sensitivity, index: usize) -> Vec<Step> {
    let step = |from: usize, to: usize| {
        let bytes = level_bytes(linear, to).saturating_sub(level_bytes(linear, from));
        let saved = linear.divergence_at(from) - linear.divergence_at(to);
        Step {
            linear: index,
            from,
            to,
            bytes,
            gain: saved / bytes.max(1) as f64,
        }
    };
    let mut steps: Vec<Step> = Vec::new();
    let mut at = 0;
    while let Some(best) = (at + 1..LEVELS.len())
        .map(|to| step(at, to))
        .max_by(|a, b| a.gain.total_cmp(&b.gain))
    {
        at = best.to;
        steps.push(best);
    }
    steps
}

fn level_bytes(linear: &Sensitivity, level: usize) -> u64 {
    stored_bytes((linear.n, linear.k), LEVELS[level], 0)
}

fn bytes_of(linears: &[Sensitivity], levels: &[usize]) -> u64 {
    let bytes = linears.iter().zip(levels);
    bytes.map(|(linear, &level)| level_bytes(linear, level)).sum()
}

fn divergence_of(linears: &[Sensitivity], levels: &[usize]) -> f64 {
    let each = linears.iter().zip(levels);
    each.map(|(linear, &level)| linear.divergence_at(level)).sum()
}

#[cfg(test)]
mod tests {
    use dualgrain_engine::{LinearId, Role};

    use super::*;

    /// Linears of several shapes whose divergences differ by a lot.
    fn linears() -> Vec<Sensitivity> {
        let shapes = [(96, 256), (64, 64), (256, 96), (64, 500), (32, 2_048)];
        let linears = shapes.into_iter().enumerate().map(|(idx, (n, k))| Sensitivity {
            layer: idx / 4,
            role: ["qkv", "out", "up", "down"][idx % 4].into(),
            n,
            k,
            divergence: [0.004, 0.03, 0.0001, 0.009, 0.02][idx],
            errors: [1.0, 0.8, [0.65, 0.5, 0.7, 0.6, 0.65][idx], 0.005],
        });
        linears.collect()
    }

    fn budget(bits: f64) -> Budget {
        Budget {
            bits,
            num_weights: linears().iter().map(|l| (l.n * l.k) as u64).sum(),
            fixed_bytes: 0,
        }
    }

    fn least_bits() -> f64 {
        let budget = budget(0.0);
        budget.bits_of(bytes_of(&linears(), &vec![0; linears().len()]))
    }

    /// Every way to give the linears levels.
    fn all_levels(count: usize) -> impl Iterator<Item = Vec<usize>> {
        let base = LEVELS.len();
        (0..base.pow(count as u32))
            .map(move |code| (0..count).map(|i| code / base.pow(i as u32) % base).collect())
    }

    #[test]
    fn a_choice_stays_within_its_budget_and_is_close_to_the_best_of_all() {
        let linears = linears();
        for step in 0..60 {
            let budget = budget(least_bits() + 1e-9 + f64::from(step) * 0.075);
            let choice = Choice::new(linears.clone(), &budget);
            assert!(choice.bits <= budget.bits, "{} of {}", choice.bits, budget.bits);
            let fits = |levels: &Vec<usize>| bytes_of(&linears, levels) <= budget.free_bytes();
            let best = all_levels(linears.len()).filter(fits);
            let best = best
                .map(|levels| divergence_of(&linears, &levels))
                .fold(f64::INFINITY, f64::min);
            // Steps that no longer fit are left out, so a large linear may miss its last one.
            let fewest = choice.divergence_of_fewest_bits;
            let lost = (choice.expected_divergence - best) / fewest;
            assert!(lost < 0.16, "{:.3} bits: {lost} lost", budget.bits);
        }
    }

    #[test]
    fn the_rules_of_a_choice_say_what_it_chose() {
        let choice = Choice::new(linears(), &budget(5.0));
        assert!(!choice.is_uniform);
        let (group_size, rules) = choice.rules();
        for linear in &choice.linears {
            let Sensitivity { layer, role, .. } = &linear.sensitivity;
            let id = LinearId::dense(*layer, Role::ALL.into_iter().find(|r| r.name() == role).unwrap());
            let rule = rules.iter().find(|rule| rule.covers(id));
            let scheme = rule.map_or(LinearScheme::w4(group_size), |rule| rule.scheme.unwrap());
            assert_eq!(scheme.to_string(), linear.scheme);
        }
    }

    #[test]
    fn one_scheme_for_all_is_taken_where_a_mixture_gains_nothing() {
        let mut linears = linears();
        linears.truncate(1);
        linears[0].errors = [1.0, 0.5, 0.499, 0.498];
        let bytes = stored_bytes((96, 256), LEVELS[1], 0);
        let budget = Budget {
            bits: 8.0 * bytes as f64 / (96.0 * 256.0),
            num_weights: 96 * 256,
            fixed_bytes: 0,
        };
        let choice = Choice::new(linears, &budget);
        assert!(choice.is_uniform);
        assert_eq!(choice.rules(), (GroupSize::Along(64), Vec::new()));
        assert!(choice.summary().contains("1 in w4/64"), "{}", choice.summary());
    }

    #[test]
    fn linears_that_predictions_do_not_feel_stay_in_the_fewest_bits() {
        let mut linears = linears();
        linears.iter_mut().for_each(|linear| linear.divergence = 0.0);
        let choice = Choice::new(linears, &budget(6.0));
        assert!(choice.linears.iter().all(|linear| linear.scheme == "w4/128"));
    }
}
