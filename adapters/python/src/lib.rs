//! The library dualgrain as the module `dualgrain._native` of a Python package.
//!
//! What a person writes and reads is in Python (`python/dualgrain`): signatures, records, documentation. This crate runs what they ask for
//! with Python's lock given up, looks for signals meanwhile, and turns errors into exceptions by their kind. No lock of this crate
//! is ever held while Python's is waited for.
#![forbid(unsafe_code)]

mod engine;
mod errors;
mod evaluation;
mod fields;
mod names;
mod pricing;
mod quantization;
mod running;
mod scoring;
mod watch;
mod words;

use pyo3::prelude::*;

/// Quantizing, running, judging and pricing language models: the part of `dualgrain` that is not Python.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::evaluation::evaluate;
    #[pymodule_export]
    use crate::pricing::{cost, machines, predict};
    #[pymodule_export]
    use crate::quantization::quantize;
    #[pymodule_export]
    use crate::running::Running;
}
