//! The specification as a whole device: plain loops over plain vectors, one thread.
//!
//! Tests run models on it and compare a faster device bit for bit. It can be told to fail, so that tests see what a
//! failing device does to those who use it.

mod buffers;
mod cache;
mod operations;
mod products;
mod statistics;

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::{DeviceError, Done};

/// What an error calls the device.
const NAME: &str = "the naive device";

/// The specification as a device.
#[derive(Debug)]
pub struct NaiveDevice {
    /// Operations until one fails; 0 when none is to fail.
    operations_to_fault: AtomicU64,
    /// The entry that tables of so many entries have no numbers for.
    spoiled_token: AtomicU32,
    spoiled_entries: AtomicUsize,
    works_ahead: bool,
}

impl Default for NaiveDevice {
    fn default() -> Self {
        Self {
            operations_to_fault: AtomicU64::new(0),
            spoiled_token: AtomicU32::new(u32::MAX),
            spoiled_entries: AtomicUsize::new(0),
            works_ahead: false,
        }
    }
}

impl NaiveDevice {
    /// A device that does not fail.
    pub fn new() -> Self {
        Self::default()
    }

    /// A device whose engine begins steps before it reads what the step before chose, as it does on a card.
    pub fn working_ahead() -> Self {
        Self {
            works_ahead: true,
            ..Self::default()
        }
    }

    /// Lets the operation after `operations` more ones fail, once.
    pub fn fail_after(&self, operations: u64) {
        self.operations_to_fault.store(operations + 1, Ordering::Relaxed);
    }

    /// Makes the embedding of `token` in a vocabulary of `vocab_size` NaN from now on, as damaged weights would.
    pub fn spoil_token(&self, token: u32, vocab_size: usize) {
        self.spoiled_token.store(token, Ordering::Relaxed);
        self.spoiled_entries.store(vocab_size, Ordering::Relaxed);
    }

    fn is_spoiled(&self, token: u32, entries: usize) -> bool {
        self.spoiled_token.load(Ordering::Relaxed) == token
            && self.spoiled_entries.load(Ordering::Relaxed) == entries
    }

    /// Begins an operation: an error where it was told to fail.
    fn begin(&self, operation: &'static str, sizes: &[usize]) -> Done {
        let left = self.operations_to_fault.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.operations_to_fault.store(left - 1, Ordering::Relaxed);
        if left > 1 {
            return Ok(());
        }
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        Err(DeviceError::Operation {
            operation,
            device: NAME.to_owned(),
            sizes: sizes.join(" x "),
            problem: "it was told to fail here".to_owned(),
        })
    }
}
