//! The begin and the end of every operation, while they are timed.

use std::sync::{Mutex, PoisonError};

use crate::driver::Event;

/// Begin and end of each operation while they are timed.
#[derive(Default)]
pub(super) struct OperationClock(pub(super) Mutex<Option<Vec<TimedOperation>>>);

/// The name of an operation, its begin and its end.
pub(super) type TimedOperation = (&'static str, Event, Event);

impl OperationClock {
    /// Whether operations are timed: each is launched by itself then.
    pub(super) fn is_on(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
