//! A card with its clocks, its power and its energy counter.

use std::cell::Cell;
use std::time::{Duration, Instant};

use dualgrain_cuda::{CudaError, Gpu, Graph, NvmlDevice, time_once_s};

use super::counter::CounterLog;
use crate::data::Row;

pub(crate) const ENERGY_REPLAY_S: f64 = 5e-3;
pub(crate) const SLOW_S: f64 = 0.05;
/// Launches of a graph, at most.
pub(crate) const MOST_LAUNCHES: usize = 1_500;
/// Pause between two looks at the queue.
pub(crate) const LOOK: Duration = Duration::from_micros(200);

/// What is measured: launch `i` takes copy `i` of the weights.
pub(crate) struct TimedLaunch<'a> {
    pub launch: &'a dyn Fn(usize) -> Result<(), CudaError>,
    pub copies: usize,
}

/// A card that is measured.
pub(crate) struct Meter<'a> {
    pub device: &'a Gpu,
    pub card: Option<NvmlDevice>,
    /// The energy counter, if the card shows one.
    pub counter: Option<CounterLog>,
    /// How far it is behind.
    pub lag: Duration,
    /// Ticks of an energy region.
    pub ticks: usize,
    pub(crate) last_heavy: Cell<Option<Instant>>,
}

impl<'a> Meter<'a> {
    pub fn new(device: &'a Gpu, card: Option<NvmlDevice>, ticks: usize) -> Self {
        let counter = card.as_ref().and_then(CounterLog::start);
        Self {
            device,
            card,
            counter,
            lag: Duration::ZERO,
            ticks,
            last_heavy: Cell::new(None),
        }
    }

    pub(crate) fn estimate_s(&self, timed: &TimedLaunch<'_>) -> Result<f64, CudaError> {
        let once = |count: usize| {
            time_once_s(self.device, || {
                (0..count).try_for_each(|i| (timed.launch)(i % timed.copies))
            })
        };
        let first = once(1)?;
        let estimate = if first < 1e-3 { once(4)? / 4.0 } else { first };
        Ok(estimate.max(1e-6))
    }

    /// Clocks, temperature and throttle reasons now; empty where they are hidden.
    pub(crate) fn set_state(&self, row: &mut Row) {
        let Some(card) = &self.card else {
            return;
        };
        row.sm_clock_hz = card.sm_clock_hz().ok();
        row.memory_clock_hz = card.memory_clock_hz().ok();
        row.temperature_c = card.temperature_c().ok();
        row.throttle_reasons = card.throttle_reasons().ok();
    }

    /// Seconds between two movements of the counter; `None` without one that moves.
    pub fn tick_s(&self) -> Option<f64> {
        Some(self.counter.as_ref()?.tick_times()?.tick_s)
    }

    /// Mean power over some seconds in which the caller runs nothing, after a pause for the counter to get there.
    pub fn idle_power_w(&self, seconds: f64) -> Option<f64> {
        let counter = self.counter.as_ref()?;
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let ticks = counter.ticks();
        let from = Instant::now().checked_sub(Duration::from_secs_f64(0.6 * seconds))?;
        let first = ticks.iter().find(|tick| tick.at >= from)?;
        let last = ticks.last()?;
        let time_s = (last.at - first.at).as_secs_f64();
        (time_s > 0.0).then(|| (last.energy_j - first.energy_j) / time_s)
    }
}

/// Records `count` launches.
pub(crate) fn record<'a>(
    device: &Gpu,
    timed: &'a TimedLaunch<'a>,
    count: usize,
) -> Result<Graph<'a>, CudaError> {
    let launches = move || (0..count).try_for_each(|i| (timed.launch)(i % timed.copies));
    Graph::record(device, launches)
}
