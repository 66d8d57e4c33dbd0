//! What calibration text tells about the inputs of linears.

pub mod hidden_states;
pub mod window_rows;
pub mod windows;
