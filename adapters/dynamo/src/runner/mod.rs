//! The thread that owns the model, and the way to it. Of Dynamo it knows whom to tell of pages and of load.

mod job;
mod page_events;
mod publishers;
mod thread;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dualgrain::AnyDevice;
use dualgrain::engine::scheduler::{Scheduler, TokenRequest};
use tokio::sync::{Semaphore, mpsc, watch};

pub use job::{Job, Update};
pub use publishers::Publishers;
use thread::EngineThread;

use crate::metrics::Metrics;
use crate::request::Wanted;

/// The way to the engine's thread.
pub struct Runner {
    /// `None` once no more requests are taken.
    jobs: Mutex<Option<mpsc::UnboundedSender<(TokenRequest, Job)>>>,
    places: Arc<Semaphore>,
    /// Requests that were taken and have not ended.
    open: Arc<AtomicUsize>,
    ended: watch::Receiver<bool>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsubmitted {
    /// As many run and wait as may.
    Full,
    /// No more are taken.
    Closed,
}

impl Runner {
    /// Starts the thread; `places` requests run or wait at most.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        mut scheduler: Scheduler<AnyDevice>,
        places: usize,
        metrics: Arc<Metrics>,
        publishers: Arc<Publishers>,
    ) -> std::io::Result<Self> {
        scheduler.watch_pages();
        // Every job holds a place: there are never more.
        let (jobs, received) = mpsc::unbounded_channel();
        let (ends, ended) = watch::channel(false);
        let thread = EngineThread::new(scheduler, received, metrics, publishers);
        let body = move || {
            let done = catch_unwind(AssertUnwindSafe(|| thread.run()));
            if done.is_err() {
                // Whoever watches over the worker starts it anew; its requests go on elsewhere.
                tracing::error!("the engine's thread panicked: the worker ends");
                std::process::exit(1);
            }
            ends.send_replace(true);
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(body)?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            places: Arc::new(Semaphore::new(places)),
            open: Arc::default(),
            ended,
        })
    }

    /// Submits a request; dropping the receiver cancels it.
    ///
    /// # Errors
    /// There is no place, or no more requests are taken.
    pub fn submit(&self, wanted: Wanted) -> Result<mpsc::UnboundedReceiver<Update>, Unsubmitted> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.as_ref().ok_or(Unsubmitted::Closed)?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Unsubmitted::Full)?;
        let (request, job, updates) = Job::new(wanted, place, &self.open);
        jobs.send((request, job)).map_err(|_| Unsubmitted::Closed)?;
        Ok(updates)
    }

    /// Requests that were taken and have not ended.
    pub fn num_open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Takes no more requests and returns when those that were taken have ended and the thread with them.
    pub async fn drain(&self) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut ended = self.ended.clone();
        // An error would be a thread that is gone already.
        let _ = ended.wait_for(|&ended| ended).await;
    }
}
