//! Ctrl-C and termination signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context;

use crate::cli::exit_code;
use crate::cli::terminal::tell;

/// The flag of [`interrupt_flag`].
static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A flag that Ctrl-C (or a termination signal) raises; a second one ends the process at once.
pub fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(flag) = RAISED.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(RAISED.get_or_init(Arc::default));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::SeqCst) {
            std::process::exit(exit_code::INTERRUPTED.into());
        }
        tell("\nstopping (press Ctrl-C again to stop at once)");
    })
    .context("installing the Ctrl-C handler")?;
    Ok(flag)
}

/// Whether the flag is up.
pub fn was_interrupted() -> bool {
    RAISED.get().is_some_and(|flag| flag.load(Ordering::SeqCst))
}

/// Ends the process with a message on Ctrl-C (or a termination signal): for verbs that only read.
pub fn exit_on_interrupt() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        tell("\nerror: interrupted");
        std::process::exit(exit_code::INTERRUPTED.into());
    })
    .context("installing the Ctrl-C handler")
}
