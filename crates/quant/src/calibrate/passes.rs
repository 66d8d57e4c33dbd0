//! The passes of a block, in the order in which a block takes them. Each runs all calibration windows through one step
//! of the block; most leave the statistics of what the next linear takes.

use dualgrain_device::{Device, Statistics};
use dualgrain_engine::{Block, BlockSpec, Head, Norm, Role};

use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::multiply_adds::{PassMultiplyAdds, gram_multiply_adds};
use crate::calibrate::statistics::{InputStatistics, Observation};
use crate::error::QuantError;
use crate::monitor::Meter;

/// The input of Qkv: the residual stream after the norm before attention.
///
/// # Errors
/// I/O, cancellation, values that are not finite; the same in every pass.
pub fn attention_input<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    meter: &Meter<'_>,
) -> Result<InputStatistics, QuantError> {
    let input = Input {
        layer: block.spec().layer,
        role: Role::Qkv.name(),
        of: input_of(block, Role::Qkv),
        k: channels(block.spec(), Role::Qkv),
        multiply_adds: cost(states, block).gram(Role::Qkv),
        leaves: false,
    };
    input.observe(states, meter, |states, window| {
        states.load(window)?;
        Ok(block.attn_norm(states.device, &states.x, &mut states.scratch)?)
    })
}

/// Largest magnitude of the keys (after rope) and of the values.
///
/// # Errors
/// As [`attention_input`].
pub fn key_value_maxima<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    meter: &Meter<'_>,
) -> Result<[f32; 2], QuantError> {
    let (q, kv) = (block.spec().q_size(), block.spec().kv_size());
    let device = states.device;
    let mut maxima = [device.maxima(kv)?, device.maxima(kv)?];
    for window in 0..states.num_windows() {
        states.load(window)?;
        block.qkv(states.device, &states.x, &mut states.scratch)?;
        for (part, maxima) in maxima.iter_mut().enumerate() {
            let first = q + part * kv;
            device.abs_max(&states.scratch.qkv, first..first + kv, maxima)?;
        }
        meter.check()?;
    }
    let [keys, values] = maxima;
    let largest = |maxima: Vec<f32>| maxima.into_iter().fold(0.0, f32::max);
    Ok([
        largest(device.read_maxima(&keys)?),
        largest(device.read_maxima(&values)?),
    ])
}

/// The input of Out: attention, which is also kept for [`add_attention`].
///
/// # Errors
/// As [`attention_input`].
pub fn attention_output<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    meter: &Meter<'_>,
) -> Result<InputStatistics, QuantError> {
    let cost = cost(states, block);
    let input = Input {
        layer: block.spec().layer,
        role: Role::Out.name(),
        of: input_of(block, Role::Out),
        k: channels(block.spec(), Role::Out),
        multiply_adds: cost.run(Role::Qkv) + cost.attention + cost.gram(Role::Out),
        leaves: true,
    };
    input.observe(states, meter, |states, window| attend(states, block, window))
}

/// Attention once more, after the values were rescaled.
///
/// # Errors
/// As [`attention_input`].
pub fn repeat_attention<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    meter: &Meter<'_>,
) -> Result<(), QuantError> {
    (0..states.num_windows()).try_for_each(|window| {
        attend(states, block, window)?;
        meter.check()
    })
}

/// Adds Out of the attention to the residual stream, but for a parallel block; the input of Up.
///
/// # Errors
/// As [`attention_input`].
pub fn add_attention<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    meter: &Meter<'_>,
) -> Result<InputStatistics, QuantError> {
    let cost = cost(states, block);
    let input = Input {
        layer: block.spec().layer,
        role: Role::Up.name(),
        of: input_of(block, Role::Up),
        k: channels(block.spec(), Role::Up),
        multiply_adds: cost.run(Role::Out) + cost.gram(Role::Up),
        leaves: !block.spec().parallel,
    };
    input.observe(states, meter, |states, window| {
        states.load(window)?;
        if !block.spec().parallel {
            add_attended(states, block, window)?;
            states.store(window)?;
        }
        Ok(block.ffn_norm(states.device, &states.x, &mut states.scratch)?)
    })
}

/// Puts the input of `role` in a window where [`input_of`] finds it, and what the residual stream is before the linear adds to it
/// into `states.x`. The passes up to the linear have been taken.
///
/// # Errors
/// As [`attention_input`].
pub(super) fn load_input<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    role: Role,
    window: usize,
) -> Result<(), QuantError> {
    states.load(window)?;
    let (device, scratch) = (states.device, &mut states.scratch);
    match role {
        Role::Qkv => Ok(block.attn_norm(device, &states.x, scratch)?),
        Role::Out => states.load_attended(window),
        Role::Up => Ok(block.ffn_norm(device, &states.x, scratch)?),
        Role::Down => run_feed_forward(states, block, window),
    }
}

/// The input of Down: the feed-forward between its two linears.
///
/// # Errors
/// As [`attention_input`].
pub fn feed_forward_inner<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    meter: &Meter<'_>,
) -> Result<InputStatistics, QuantError> {
    let cost = cost(states, block);
    let input = Input {
        layer: block.spec().layer,
        role: Role::Down.name(),
        of: input_of(block, Role::Down),
        k: channels(block.spec(), Role::Down),
        multiply_adds: cost.run(Role::Up) + cost.gram(Role::Down),
        leaves: false,
    };
    input.observe(states, meter, |states, window| {
        states.load(window)?;
        Ok(block.ffn_inner(states.device, &states.x, &mut states.scratch)?)
    })
}

/// Adds Down of the feed-forward to the residual stream: the input of the next block.
///
/// # Errors
/// As [`attention_input`].
pub fn add_feed_forward<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    meter: &Meter<'_>,
) -> Result<(), QuantError> {
    let cost = cost(states, block);
    for window in 0..states.num_windows() {
        states.load(window)?;
        run_feed_forward(states, block, window)?;
        block.add_down(states.device, &mut states.x, &mut states.scratch)?;
        states.store(window)?;
        meter.advance(cost.run(Role::Up) + cost.run(Role::Down))?;
    }
    Ok(())
}

/// Takes window `from` through the whole block; it becomes window `to`.
///
/// # Errors
/// As [`attention_input`].
pub fn run_block<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    (from, to): (usize, usize),
) -> Result<(), QuantError> {
    states.load(from)?;
    states.attend_in_place(block)?;
    if block.spec().parallel {
        block.ffn_inner(states.device, &states.x, &mut states.scratch)?;
        block.add_out(states.device, &mut states.x, &mut states.scratch)?;
    } else {
        block.add_out(states.device, &mut states.x, &mut states.scratch)?;
        block.ffn_inner(states.device, &states.x, &mut states.scratch)?;
    }
    block.add_down(states.device, &mut states.x, &mut states.scratch)?;
    states.store(to)
}

/// The mean square of every channel `[K]` of the input of each role, over the first `num_windows` windows; nothing is stored.
///
/// # Errors
/// As [`attention_input`].
pub fn mean_squares<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    num_windows: usize,
) -> Result<[Vec<f64>; Role::ALL.len()], QuantError> {
    let mut squares = Role::ALL.map(|_| Vec::new());
    for window in 0..num_windows {
        states.load(window)?;
        for role in Role::ALL {
            match role {
                Role::Qkv => block.attn_norm(states.device, &states.x, &mut states.scratch)?,
                Role::Out => states.attend_in_place(block)?,
                Role::Up => {
                    if !block.spec().parallel {
                        block.add_out(states.device, &mut states.x, &mut states.scratch)?;
                    }
                    block.ffn_norm(states.device, &states.x, &mut states.scratch)?;
                }
                Role::Down => block.ffn_inner(states.device, &states.x, &mut states.scratch)?,
            }
            states.add_squares(input_of(block, role), &mut squares[role as usize])?;
        }
    }
    let tokens = (num_windows * states.window_len()) as f64;
    Ok(squares.map(|channels| channels.into_iter().map(|sum: f64| sum / tokens).collect()))
}

/// What a model with this `head` predicts after the tokens of a window: `logits` `[window_len, vocab]`.
///
/// # Errors
/// As [`attention_input`].
pub fn head_logits<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    head: &Head<D>,
    window: usize,
    logits: &mut D::Matrix,
) -> Result<(), QuantError> {
    states.load(window)?;
    let (h, h8) = (&mut states.scratch.h, &mut states.scratch.h8);
    Ok(head.apply(states.device, logits, &states.x, h, h8)?)
}

/// The input of the head, after the last of `num_layers` blocks and the norm behind it.
///
/// # Errors
/// As [`attention_input`].
pub fn head_input<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    norm: &Norm<D>,
    num_layers: usize,
    meter: &Meter<'_>,
) -> Result<InputStatistics, QuantError> {
    let hidden = states.device.columns(&states.x);
    let input = Input {
        layer: num_layers,
        role: "head",
        of: |states| &states.scratch.h,
        k: hidden,
        multiply_adds: gram_multiply_adds(states.window_len(), hidden),
        leaves: false,
    };
    input.observe(states, meter, |states, window| {
        states.load(window)?;
        Ok(norm.apply(states.device, &mut states.scratch.h, &states.x)?)
    })
}

/// The input of a linear, as a pass observes it.
struct Input<D: Statistics> {
    layer: usize,
    role: &'static str,
    /// Where it lies when a window has been run.
    of: InputOf<D>,
    /// Its channels: a buffer has those of the last block until a window has been run.
    k: usize,
    /// What a window costs.
    multiply_adds: u64,
    /// Whether the step leaves something of a window for later passes.
    leaves: bool,
}

impl<D: Statistics> Input<D> {
    /// Runs `step` on every window, as far as the step or its observation is wanted, and observes what it leaves.
    fn observe(
        &self,
        states: &mut HiddenStates<'_, D>,
        meter: &Meter<'_>,
        step: impl Fn(&mut HiddenStates<'_, D>, usize) -> Result<(), QuantError>,
    ) -> Result<InputStatistics, QuantError> {
        let (device, num_windows) = (states.device, states.num_windows());
        let mut observation = Observation::new(device, self.k)?;
        let every = states.observed_every();
        for window in 0..num_windows {
            let observed = window % every == 0;
            if observed || self.leaves {
                step(states, window)?;
            }
            if observed {
                observation.add((self.of)(states), window, num_windows.div_ceil(every))?;
            }
            meter.advance(self.multiply_adds)?;
        }
        observation.finish(self.layer, self.role)
    }
}

/// Channels of the input of a linear that every token takes.
fn channels(spec: &BlockSpec, role: Role) -> usize {
    match role {
        Role::Qkv | Role::Up => spec.hidden_size,
        Role::Out => spec.q_size(),
        Role::Down => spec.ffn_size,
    }
}

/// Where an input lies.
pub(super) type InputOf<D> = for<'s> fn(&'s HiddenStates<'_, D>) -> &'s <D as Device>::Matrix;

/// Where the input of `role` lies when a window has been run up to it: behind a norm, or in the residual stream itself.
pub(super) fn input_of<D: Statistics>(block: &Block<D>, role: Role) -> InputOf<D> {
    let spec = block.spec();
    match role {
        Role::Qkv if spec.attn_norm.is_none() => |states| &states.x,
        Role::Up if spec.ffn_norm.is_none() => |states| &states.x,
        Role::Qkv | Role::Up => |states| &states.scratch.h,
        Role::Out => |states| &states.scratch.c,
        Role::Down => |states| &states.scratch.f,
    }
}

/// Runs the feed-forward of the window at hand up to Down, in whose place attention has been added to the residual stream then.
fn run_feed_forward<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    window: usize,
) -> Result<(), QuantError> {
    block.ffn_inner(states.device, &states.x, &mut states.scratch)?;
    match block.spec().parallel {
        true => add_attended(states, block, window),
        false => Ok(()),
    }
}

fn add_attended<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    window: usize,
) -> Result<(), QuantError> {
    states.load_attended(window)?;
    Ok(block.add_out(states.device, &mut states.x, &mut states.scratch)?)
}

fn attend<D: Statistics>(
    states: &mut HiddenStates<'_, D>,
    block: &Block<D>,
    window: usize,
) -> Result<(), QuantError> {
    states.load(window)?;
    block.qkv(states.device, &states.x, &mut states.scratch)?;
    states.attend(block, window)
}

fn cost<D: Statistics>(states: &HiddenStates<'_, D>, block: &Block<D>) -> PassMultiplyAdds {
    PassMultiplyAdds::new(block.spec(), states.window_len())
}
