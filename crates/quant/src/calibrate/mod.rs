//! What calibration text tells about the inputs of linears.

pub mod hidden_states;
pub mod multiply_adds;
pub mod passes;
pub mod statistics;
pub mod window_rows;
pub mod windows;
