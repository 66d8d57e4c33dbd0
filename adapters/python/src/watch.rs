//! Work that gives Python's lock up: it looks for signals meanwhile, tells a callable how far it is, and ends where either says so.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::errors::{Cancelled, of_panic};

/// How long a signal may wait.
const SIGNALS_EVERY: Duration = Duration::from_millis(20);
/// How often a callable is told of the same phase.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Looks for what ends a work before its time.
pub struct Watch {
    progress: Option<Py<PyAny>>,
    looked: Cell<Instant>,
    told: Cell<Option<Instant>>,
    phase: RefCell<String>,
}

/// What unwinds a work that has no other way to end.
struct Ended(PyErr);

/// Runs `work` with Python's lock given up. A panic in it becomes an exception.
///
/// # Errors
/// What `work` says; the exception of a signal or of `progress`, where `work` passes on what its watch says.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&Watch) -> PyResult<T> + Send,
) -> PyResult<T> {
    py.detach(|| {
        let watch = Watch {
            progress,
            looked: Cell::new(Instant::now()),
            told: Cell::new(None),
            phase: RefCell::default(),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&watch)));
        outcome.unwrap_or_else(|payload| match payload.downcast::<Ended>() {
            Ok(ended) => Err(ended.0),
            Err(payload) => Err(of_panic(&*payload)),
        })
    })
}

impl Watch {
    /// Looks for signals, not more often than they need.
    ///
    /// # Errors
    /// What a handler of a signal raised: `KeyboardInterrupt` by itself.
    pub fn look(&self) -> PyResult<()> {
        let now = Instant::now();
        if now - self.looked.get() < SIGNALS_EVERY {
            return Ok(());
        }
        self.looked.set(now);
        Python::attach(|py| py.check_signals())
    }

    /// As [`Self::look`], and tells the callable, where there is one, that `done` of `total` is done.
    ///
    /// # Errors
    /// As [`Self::look`]; what the callable raised; `Cancelled` where it gave back `False`.
    pub fn tell(&self, phase: &str, done: u64, total: u64) -> PyResult<()> {
        self.look()?;
        let Some(progress) = &self.progress else {
            return Ok(());
        };
        let now = Instant::now();
        let waits = self.told.get().is_some_and(|told| now - told < PROGRESS_EVERY);
        if waits && done < total && *self.phase.borrow() == phase {
            return Ok(());
        }
        self.told.set(Some(now));
        phase.clone_into(&mut self.phase.borrow_mut());
        Python::attach(|py| {
            let said = progress.bind(py).call1((phase, done, total))?;
            match said.cast::<PyBool>() {
                Ok(said) if !said.is_true() => Err(Cancelled::new_err(
                    "progress gave back False, so the work was ended",
                )),
                _ => Ok(()),
            }
        })
    }

    /// As [`Self::tell`], from inside of what cannot be ended by an error: it is unwound, and [`run`] gives the exception out.
    pub fn tell_or_unwind(&self, phase: &str, done: u64, total: u64) {
        if let Err(error) = self.tell(phase, done, total) {
            // No panic: nothing is printed.
            resume_unwind(Box::new(Ended(error)));
        }
    }
}
