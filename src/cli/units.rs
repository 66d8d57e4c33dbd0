//! Times and sizes as a person reads them.

pub use dualgrain::units::{bytes, duration};
