//! How a caller watches an export and ends it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::ExportError;

/// What an export is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// The tensor that is written.
    pub tensor: &'a str,
    /// Bytes written.
    pub done: u64,
    /// All bytes.
    pub total: u64,
}

/// A progress callback and a cancellation flag.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    progress: &'a dyn Fn(Progress<'_>),
    cancel: &'a AtomicBool,
}

/// A flag that is never raised.
static NEVER: AtomicBool = AtomicBool::new(false);

impl<'a> Watch<'a> {
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

/// Counts what was written for a [`Watch`].
pub struct Meter<'a> {
    watch: Watch<'a>,
    total: u64,
    done: Cell<u64>,
}

impl<'a> Meter<'a> {
    /// A meter of `total` bytes.
    pub fn new(watch: Watch<'a>, total: u64) -> Self {
        Self {
            watch,
            total,
            done: Cell::new(0),
        }
    }

    /// Tells that `tensor` is next.
    ///
    /// # Errors
    /// [`ExportError::Cancelled`] when the caller asked for it.
    pub fn start(&self, tensor: &str) -> Result<(), ExportError> {
        if self.watch.cancel.load(Ordering::Relaxed) {
            return Err(ExportError::Cancelled);
        }
        (self.watch.progress)(Progress {
            tensor,
            done: self.done.get(),
            total: self.total,
        });
        Ok(())
    }

    /// Counts bytes that were written.
    pub fn add(&self, bytes: usize) {
        self.done.set(self.done.get().saturating_add(bytes as u64));
    }

    /// All bytes that were written.
    pub fn done(&self) -> u64 {
        self.done.get()
    }
}
