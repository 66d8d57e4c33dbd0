//! The specification as a whole device: plain loops over plain vectors, one thread.
//!
//! Tests run models on it and compare a faster device bit for bit. It can be told to fail, so that tests see what a
//! failing device does to those who use it.

mod buffers;
mod cache;
mod operations;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{DeviceError, Done};

/// What an error calls the device.
const NAME: &str = "the naive device";

/// The specification as a device.
#[derive(Debug)]
pub struct NaiveDevice {
    /// Operations until one fails; 0 when none is to fail.
    operations_to_fault: AtomicU64,
    /// The token that every table has no numbers for; `u32::MAX` for none.
    spoiled_token: AtomicU32,
}

impl Default for NaiveDevice {
    fn default() -> Self {
        Self {
            operations_to_fault: AtomicU64::new(0),
            spoiled_token: AtomicU32::new(u32::MAX),
        }
    }
}

impl NaiveDevice {
    /// A device that does not fail.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the operation after `operations` more ones fail, once.
    pub fn fail_after(&self, operations: u64) {
        self.operations_to_fault.store(operations + 1, Ordering::Relaxed);
    }

    /// Makes the embedding of `token` NaN from now on, as damaged weights would.
    pub fn spoil_token(&self, token: u32) {
        self.spoiled_token.store(token, Ordering::Relaxed);
    }

    fn is_spoiled(&self, token: u32) -> bool {
        self.spoiled_token.load(Ordering::Relaxed) == token
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
