//! How a caller watches a long run and ends it.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::QuantError;

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// What is being done, e.g. `block 3/8: down, search`.
    pub phase: &'a str,
    /// Work done, in the unit of `total`: about a multiply-add of floats.
    pub done: u64,
    /// All work.
    pub total: u64,
}

/// A progress callback and a cancellation flag.
#[derive(Clone, Copy)]
pub struct Monitor<'a> {
    progress: &'a dyn Fn(Progress<'_>),
    cancel: &'a AtomicBool,
}

/// A flag that is never raised.
static NEVER: AtomicBool = AtomicBool::new(false);

impl<'a> Monitor<'a> {
    /// Reports to `progress`, ends soon after `cancel` is raised.
    pub fn new(progress: &'a dyn Fn(Progress<'_>), cancel: &'a AtomicBool) -> Self {
        Self { progress, cancel }
    }

    /// Says nothing and is never cancelled.
    pub fn silent() -> Self {
        Self {
            progress: &|_| (),
            cancel: &NEVER,
        }
    }
}

/// Counts the work of a run for its [`Monitor`].
pub struct Meter<'a> {
    monitor: Monitor<'a>,
    total: u64,
    done: Cell<u64>,
    phase: RefCell<String>,
}

impl<'a> Meter<'a> {
    /// A meter of `total` units of work.
    pub fn new(monitor: Monitor<'a>, total: u64) -> Self {
        Self {
            monitor,
            total,
            done: Cell::new(0),
            phase: RefCell::new(String::new()),
        }
    }

    /// All work of the run.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Names what follows.
    pub fn start(&self, phase: String) {
        *self.phase.borrow_mut() = phase;
        self.report();
    }

    /// Counts finished work and ends the run when the caller asked for it.
    ///
    /// # Errors
    /// [`QuantError::Cancelled`].
    pub fn advance(&self, work: u64) -> Result<(), QuantError> {
        self.done.set((self.done.get() + work).min(self.total));
        self.report();
        self.check()
    }

    /// Ends the run when the caller asked for it.
    ///
    /// # Errors
    /// [`QuantError::Cancelled`].
    pub fn check(&self) -> Result<(), QuantError> {
        if self.monitor.cancel.load(Ordering::Relaxed) {
            return Err(QuantError::Cancelled);
        }
        Ok(())
    }

    fn report(&self) {
        (self.monitor.progress)(Progress {
            phase: &self.phase.borrow(),
            done: self.done.get(),
            total: self.total,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_ends_the_run_at_the_next_step() {
        let cancel = AtomicBool::new(false);
        let seen = RefCell::new(Vec::new());
        let progress = |p: Progress<'_>| seen.borrow_mut().push((p.phase.to_owned(), p.done, p.total));
        let meter = Meter::new(Monitor::new(&progress, &cancel), 10);
        meter.start("search".into());
        assert!(meter.advance(4).is_ok());
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(meter.advance(9), Err(QuantError::Cancelled)));
        assert_eq!(seen.borrow().last(), Some(&("search".to_owned(), 10, 10)));
    }
}
