//! The original model beside the quantized one, on the same windows: what the quantized one should have seen.

use dualgrain_device::Statistics;
use dualgrain_engine::{Block, Role};

use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::multiply_adds::PassMultiplyAdds;
use crate::calibrate::passes;
use crate::error::QuantError;
use crate::monitor::Meter;

/// The hidden states of the original model, and the block of it that is run.
pub struct Companion<'a, D: Statistics> {
    pub(super) states: HiddenStates<'a, D>,
    pub(super) block: Block<D>,
}

impl<'a, D: Statistics> Companion<'a, D> {
    /// The original model before `block`, where `states` stand.
    pub fn new(states: HiddenStates<'a, D>, block: Block<D>) -> Self {
        Self { states, block }
    }

    /// Attention of all windows.
    ///
    /// # Errors
    /// I/O, cancellation.
    pub fn attend(&mut self, meter: &Meter<'_>) -> Result<(), QuantError> {
        passes::repeat_attention(&mut self.states, &self.block, meter)
    }

    /// The whole block, without looking at anything on the way.
    ///
    /// # Errors
    /// I/O, cancellation.
    pub fn run_block(&mut self, meter: &Meter<'_>) -> Result<(), QuantError> {
        self.attend(meter)?;
        self.pass(Role::Out, meter)?;
        self.pass(Role::Down, meter)
    }

    /// Passes a linear, without looking at its input: Out and Down add to the residual stream.
    ///
    /// # Errors
    /// I/O, cancellation.
    pub fn pass(&mut self, role: Role, meter: &Meter<'_>) -> Result<(), QuantError> {
        // In a parallel block Out is added where Down is.
        if !adds_to_stream(role) || self.leaves_to_down(role) {
            return Ok(());
        }
        let cost = PassMultiplyAdds::new(self.block.spec(), self.states.window_len());
        let cost = if role == Role::Down {
            cost.original_experts()
        } else {
            0
        };
        for window in 0..self.states.num_windows() {
            passes::load_input(&mut self.states, &self.block, role, window)?;
            self.add_to_stream(role, window)?;
            meter.advance(cost)?;
        }
        Ok(())
    }

    /// Adds the output of `role`, Out or Down, to the residual stream of a window whose input has been loaded. What Out gives in a
    /// parallel block is not kept: it is added again where Down is.
    ///
    /// # Errors
    /// I/O, the device failed.
    pub(super) fn add_to_stream(&mut self, role: Role, window: usize) -> Result<(), QuantError> {
        let states = &mut self.states;
        let (x, scratch) = (&mut states.x, &mut states.scratch);
        match role {
            Role::Out => self.block.add_out(states.device, x, scratch)?,
            _ => self.block.add_down(states.device, x, scratch)?,
        }
        match self.leaves_to_down(role) {
            true => Ok(()),
            false => self.states.store(window),
        }
    }

    fn leaves_to_down(&self, role: Role) -> bool {
        role == Role::Out && self.block.spec().parallel
    }

    /// The residual stream of all windows.
    pub fn into_states(self) -> HiddenStates<'a, D> {
        self.states
    }
}

/// Whether the output of `role` is added to the residual stream.
pub fn adds_to_stream(role: Role) -> bool {
    matches!(role, Role::Out | Role::Down)
}
