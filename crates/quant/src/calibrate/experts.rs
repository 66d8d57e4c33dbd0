//! What the experts of a mixture read, each over the tokens that go to it.

use std::ops::Range;

use dualgrain_device::{ExpertInput, Statistics};
use dualgrain_engine::{Block, Role};

use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::multiply_adds::PassMultiplyAdds;
use crate::calibrate::passes::load_input;
use crate::calibrate::statistics::{InputStatistics, Observation};
use crate::error::QuantError;
use crate::monitor::Meter;

/// The input of an expert's linear.
pub struct ExpertStatistics {
    /// Over the tokens that went to the expert.
    pub statistics: InputStatistics,
    /// How many went there.
    pub num_tokens: usize,
}

/// The inputs of the linears of `role` of some experts; the passes up to the linear have been taken.
///
/// # Errors
/// I/O, cancellation, values that are not finite; the device failed.
pub fn expert_inputs<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    (role, experts): (Role, Range<usize>),
    meter: &Meter<'_>,
) -> Result<Vec<ExpertStatistics>, QuantError> {
    let device = states.device;
    let k = device.columns(source(states, role).0);
    let new = |_| Ok::<_, QuantError>((Observation::new(device, k)?, 0));
    let mut observations = experts.clone().map(new).collect::<Result<Vec<_>, _>>()?;
    let mut rows = device.matrix(states.window_len(), k)?;
    let cost = part_of_pass(states, block, (role, experts.len()));
    for window in 0..states.num_windows() {
        load_routed(states, block, role, window)?;
        for (expert, (observation, num_tokens)) in experts.clone().zip(&mut observations) {
            let Some(mixture) = &states.scratch.mixture else {
                continue;
            };
            device.gather_expert(&mut rows, source(states, role), &mixture.routing, expert)?;
            if device.rows(&rows) > 0 {
                observation.add(&rows, window, states.num_windows())?;
                *num_tokens += device.rows(&rows);
            }
        }
        meter.advance(cost)?;
    }
    let layer = block.spec().layer;
    let finish = |(observation, num_tokens): (Observation<'_, D>, usize)| {
        Ok(ExpertStatistics {
            statistics: observation.finish(layer, role.name())?,
            num_tokens,
        })
    };
    observations.into_iter().map(finish).collect()
}

/// The inputs of all experts together.
///
/// # Errors
/// As [`expert_inputs`].
pub fn pooled_expert_inputs<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    role: Role,
    meter: &Meter<'_>,
) -> Result<InputStatistics, QuantError> {
    let device = states.device;
    let mut observation = Observation::new(device, device.columns(source(states, role).0))?;
    for window in 0..states.num_windows() {
        load_routed(states, block, role, window)?;
        observation.add(source(states, role).0, window, states.num_windows())?;
        meter.check()?;
    }
    observation.finish(block.spec().layer, role.name())
}

/// Puts what experts read of a window where [`source`] finds it, with its routing.
fn load_routed<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    role: Role,
    window: usize,
) -> Result<(), QuantError> {
    match role {
        Role::Down => load_input(states, block, role, window),
        _ => {
            states.load(window)?;
            Ok(block.route(states.device, &states.x, &mut states.scratch)?)
        }
    }
}

/// Where the experts' inputs lie.
fn source<'s, D: Statistics>(states: &'s HiddenStates<'_, D>, role: Role) -> (&'s D::Matrix, ExpertInput) {
    match (&states.scratch.mixture, role) {
        (Some(mixture), Role::Down) => (&mixture.f, ExpertInput::Rows),
        _ => (&states.scratch.h, ExpertInput::Tokens),
    }
}

/// What a window costs where so many experts are observed.
fn part_of_pass<D: Statistics>(
    states: &HiddenStates<'_, D>,
    block: &Block<D>,
    (role, num_observed): (Role, usize),
) -> u64 {
    let cost = PassMultiplyAdds::new(block.spec(), states.window_len());
    let num_experts = block
        .spec()
        .mixture
        .as_ref()
        .map_or(1, |mixture| mixture.num_experts);
    let running = if role == Role::Down { cost.run(Role::Up) } else { 0 };
    cost.gram_of_experts(role) * num_observed as u64 / num_experts as u64 + running
}
