//! Work that takes long or much memory: a few at a time, beside the asynchronous threads, and none for clients that are gone.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::ApiError;

/// Who finds no place in this time is told to come again.
const WAIT: Duration = Duration::from_secs(2);

/// Places for work of one kind.
#[derive(Debug)]
pub struct Turns(Arc<Semaphore>);

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held to be dropped")] OwnedSemaphorePermit);

impl Turns {
    /// So many at once.
    pub fn new(num_places: usize) -> Self {
        Self(Arc::new(Semaphore::new(num_places)))
    }

    /// Waits for a place, not for long.
    ///
    /// # Errors
    /// None became free.
    pub async fn take(&self) -> Result<Turn, ApiError> {
        let permit = tokio::time::timeout(WAIT, Arc::clone(&self.0).acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            _ => {
                let message = "too many long requests are being read: ask again later";
                Err(ApiError::come_again(StatusCode::TOO_MANY_REQUESTS, message).with_code("busy"))
            }
        }
    }
}

/// Runs `work` beside the asynchronous threads, unless its client is gone before it begins. `held` is kept until it is done, also
/// where the client goes meanwhile.
///
/// # Errors
/// Those of `work`; it panicked.
pub async fn beside<T: Send + 'static>(
    held: impl Send + 'static,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (answer, waiting) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        // The receiver lives in the request's future, which ends with its client.
        if answer.is_closed() {
            return;
        }
        let done = work();
        drop(held);
        // Nobody may be waiting any more.
        let _ = answer.send(done);
    });
    let failed = |_| Err(ApiError::internal("reading the request failed"));
    waiting.await.unwrap_or_else(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.max_blocking_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn work_whose_client_is_gone_is_not_done() {
        static DONE: AtomicBool = AtomicBool::new(false);
        runtime().block_on(async {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let first = tokio::spawn(beside((), move || Ok(wait.recv().is_ok())));
            let second = tokio::spawn(beside((), || {
                DONE.store(true, Ordering::Relaxed);
                Ok(())
            }));
            tokio::time::sleep(Duration::from_millis(50)).await;
            second.abort();
            assert!(second.await.is_err());
            go.send(()).unwrap();
            assert_eq!(first.await.unwrap(), Ok(true));
            assert_eq!(beside((), || Ok(7)).await, Ok(7));
        });
        assert!(!DONE.load(Ordering::Relaxed));
    }

    #[test]
    fn who_finds_no_place_is_told_to_come_again() {
        runtime().block_on(async {
            let turns = Turns::new(1);
            let first = turns.take().await.unwrap();
            let refused = turns.take().await.unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.retry_after_s), (429, Some(1)));
            drop(first);
            assert!(turns.take().await.is_ok());
        });
    }
}
