//! What calibration text tells about the inputs of linears.

pub mod cache_range;
pub mod companion;
pub mod drift;
pub mod experts;
pub mod hidden_states;
pub mod int8_rows;
pub mod multiply_adds;
pub mod passes;
pub mod statistics;
pub mod window_rows;
pub mod windows;
