//! How a caller watches a long run and ends it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::QuantError;

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// What is being done, e.g. `block 3/8: down`.
    pub phase: &'a str,
    /// Work done, in the unit of `total`.
    pub done: u64,
    /// All work.
    pub total: u64,
}

/// A progress callback and a cancellation flag.
#[derive(Clone, Copy)]
pub struct Monitor<'a> {
    progress: &'a (dyn Fn(Progress<'_>) + Sync),
    cancel: &'a AtomicBool,
}

/// A flag that is never raised.
static NEVER: AtomicBool = AtomicBool::new(false);

impl<'a> Monitor<'a> {
    /// Reports to `progress`, ends soon after `cancel` is raised.
    pub fn new(progress: &'a (dyn Fn(Progress<'_>) + Sync), cancel: &'a AtomicBool) -> Self {
        Self { progress, cancel }
    }

    /// Says nothing and is never cancelled.
    pub fn silent() -> Self {
        Self {
            progress: &|_| (),
            cancel: &NEVER,
        }
    }

    /// Tells the caller where the run is.
    pub fn report(&self, phase: &str, done: u64, total: u64) {
        (self.progress)(Progress { phase, done, total });
    }

    /// Ends the run when the flag is raised.
    ///
    /// # Errors
    /// [`QuantError::Cancelled`].
    pub fn check(&self) -> Result<(), QuantError> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(QuantError::Cancelled)
        } else {
            Ok(())
        }
    }
}
