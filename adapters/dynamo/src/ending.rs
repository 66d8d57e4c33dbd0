//! Whether the worker ended because it was told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody has told the worker to end. Dynamo's runtime ends a worker that has lost discovery as it ends one that was told to, and calls both a success.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Looks out for Ctrl-C and a termination signal from now on, beside the runtime.
    ///
    /// # Errors
    /// The system lets nobody listen.
    pub fn watch(&self) -> std::io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.store(true, Ordering::Release);
        });
        Ok(())
    }

    /// Nothing, where the worker was told to end.
    ///
    /// # Errors
    /// Nobody told it to.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.0.load(Ordering::Acquire),
            "the worker ended and nobody told it to: it has lost discovery (etcd, or the folder of DYN_FILE_KV). What it had begun was ended; \
             start it again when discovery answers"
        );
        Ok(())
    }
}
