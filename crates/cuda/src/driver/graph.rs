//! Launches recorded once and replayed, and the time a replay takes.

use std::marker::PhantomData;

use super::api::{self, Handle};
use super::event::Event;
use super::gpu::Gpu;
use crate::error::CudaError;

/// Launches that replay together; it borrows what they use.
pub struct Graph<'a> {
    gpu: Gpu,
    executable: Handle,
    used: PhantomData<&'a ()>,
}

impl<'a> Graph<'a> {
    /// Records what `launches` puts on the card's stream. Nothing runs yet.
    ///
    /// # Errors
    /// An error of `launches` (uploads and waits are refused while recording), or a call that failed.
    pub fn record(
        gpu: &Gpu,
        launches: impl FnOnce() -> Result<(), CudaError> + 'a,
    ) -> Result<Self, CudaError> {
        // SAFETY: the graph borrows what `launches` borrows.
        unsafe { Self::record_unbound(gpu, launches, std::convert::identity) }
    }

    /// As [`Graph::record`], without a borrow of the buffers that are launched on.
    ///
    /// # Safety
    /// The buffers are alive whenever the graph is launched.
    ///
    /// # Errors
    /// As [`Graph::record`]; `words` turns what the driver says into an error of `launches`.
    pub(crate) unsafe fn record_unbound<E>(
        gpu: &Gpu,
        launches: impl FnOnce() -> Result<(), E>,
        words: impl Fn(CudaError) -> E,
    ) -> Result<Self, E> {
        let driver = gpu.current().map_err(&words)?;
        // SAFETY: a live stream that this thread alone records.
        let code = unsafe { (driver.capture_begin)(gpu.stream(), api::CAPTURE_THREAD_LOCAL) };
        driver.check("cuStreamBeginCapture", code).map_err(&words)?;
        let launched = launches();
        let mut graph = std::ptr::null_mut();
        // SAFETY: ends the recording begun above, also after an error, and writes one handle.
        let code = unsafe { (driver.capture_end)(gpu.stream(), &raw mut graph) };
        launched?;
        driver.check("cuStreamEndCapture", code).map_err(&words)?;
        let mut executable = std::ptr::null_mut();
        // SAFETY: a graph made just now; writes one handle.
        let code = unsafe { (driver.graph_instantiate)(&raw mut executable, graph, 0) };
        // SAFETY: the executable graph does not need it any more.
        unsafe { (driver.graph_destroy)(graph) };
        driver.check("cuGraphInstantiate", code).map_err(&words)?;
        Ok(Self {
            gpu: gpu.clone(),
            executable,
            used: PhantomData,
        })
    }

    /// Puts a replay on the stream.
    ///
    /// # Errors
    /// A call that failed.
    pub fn launch(&self) -> Result<(), CudaError> {
        let driver = self.gpu.current()?;
        // SAFETY: both handles are alive.
        let code = unsafe { (driver.graph_launch)(self.executable, self.gpu.stream()) };
        driver.check("cuGraphLaunch", code)
    }

    /// Seconds that `count` replays take, by events before and after.
    ///
    /// # Errors
    /// A call that failed.
    pub fn time_s(&self, count: usize) -> Result<f64, CudaError> {
        let (start, end) = (Event::new(&self.gpu)?, Event::new(&self.gpu)?);
        start.record()?;
        for _ in 0..count {
            self.launch()?;
        }
        end.record()?;
        end.since_s(&start)
    }
}

impl Drop for Graph<'_> {
    fn drop(&mut self) {
        if let Ok(driver) = self.gpu.current() {
            // SAFETY: made once, destroyed once.
            unsafe { (driver.graph_exec_destroy)(self.executable) };
        }
    }
}
