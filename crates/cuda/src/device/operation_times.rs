//! How long each kind of operation takes on the card.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::cuda_device::CudaDevice;
use crate::driver::Event;
use crate::error::CudaError;

/// Time of all operations of one name.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OperationTime {
    /// How many there were.
    pub count: usize,
    /// Seconds on the card, all together.
    pub time_s: f64,
}

impl CudaDevice {
    /// Runs `run` and times every operation in it, by name. Each is launched by itself and events stand between them, so the
    /// sum is a little more than an untimed run takes.
    ///
    /// # Errors
    /// A call that failed.
    pub fn operation_times<T>(
        &self,
        run: impl FnOnce() -> T,
    ) -> Result<(T, BTreeMap<&'static str, OperationTime>), CudaError> {
        let clock = || self.clock.0.lock().unwrap_or_else(PoisonError::into_inner);
        *clock() = Some(Vec::new());
        let done = run();
        let timed = clock().take().unwrap_or_default();
        let mut times = BTreeMap::<_, OperationTime>::new();
        for (name, begin, end) in timed {
            let time = times.entry(name).or_default();
            time.count += 1;
            time.time_s += end.since_s(&begin)?;
        }
        Ok((done, times))
    }

    /// Runs an operation between two events where operations are timed.
    pub(super) fn timed<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce() -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        if !self.clock.is_on() {
            return run();
        }
        let (begin, end) = (Event::new(&self.gpu)?, Event::new(&self.gpu)?);
        begin.record()?;
        let done = run()?;
        end.record()?;
        let mut clock = self.clock.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(timed) = clock.as_mut() {
            timed.push((operation, begin, end));
        }
        Ok(done)
    }
}
