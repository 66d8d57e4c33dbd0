//! Measures how far a card's energy counter is behind. The card idles, then runs a steady load. The counter shows the
//! step of the load too late, by its lag.

use std::time::{Duration, Instant};

use dualgrain_cuda::{Arena, CudaError, Jit, Output, RandomOperands, SgemmTiled, Steady};
use dualgrain_device::naive::Transposes;

use super::meter::{ENERGY_REPLAY_S, LOOK, MOST_LAUNCHES, Meter, TimedLaunch, record};
use super::ticks::Tick;
use crate::error::PerfError;

/// The step of load that shows the lag.
const STEP: Duration = Duration::from_millis(1_500);
/// Side of the product whose steady power, below any limit, shows the counter's lag.
const STEP_SIDE: usize = 2_048;

impl<'a> Meter<'a> {
    /// Measures how far the counter is behind, by a step of load after the idle time that came before.
    pub fn find_lag(&mut self, timed: &TimedLaunch<'_>) -> Result<Option<Duration>, PerfError> {
        let Some(counter) = &self.counter else {
            return Ok(None);
        };
        let one_s = self.estimate_s(timed)?;
        let idle_since = Instant::now();
        let graph = record(
            self.device,
            timed,
            ((ENERGY_REPLAY_S / one_s) as usize).clamp(1, MOST_LAUNCHES),
        )?;
        // Long enough for the counter to forget the estimate.
        std::thread::sleep(STEP);
        let mut steady = Steady::new(self.device, &graph)?;
        let start = Instant::now();
        while start.elapsed() < STEP {
            steady.keep(2)?;
            std::thread::sleep(LOOK);
        }
        let end = Instant::now();
        steady.finish()?;
        let settled = idle_since + STEP / 2;
        let ticks: Vec<_> = counter
            .ticks()
            .into_iter()
            .filter(|tick| tick.at >= settled)
            .collect();
        let lag = lag_s(&ticks, (start, end)).map(|lag_s| Duration::from_secs_f64(lag_s.clamp(0.0, 1.0)));
        self.lag = lag.unwrap_or_default();
        Ok(lag)
    }
}

/// How far the energy counter is behind.
pub(crate) fn lag(
    jit: &Jit,
    meter: &mut Meter<'_>,
    arena: &mut Arena,
) -> Result<Option<Duration>, PerfError> {
    arena.reset();
    let (side, operands) = (STEP_SIDE, RandomOperands::new(jit, meter.device));
    let size_bytes = 4 * side * side;
    let [a, b, d] = [
        arena.take(size_bytes)?,
        arena.take(size_bytes)?,
        arena.take(size_bytes)?,
    ];
    operands.floats(&a, Output::F32, 1)?;
    operands.floats(&b, Output::F32, 2)?;
    let tiled = SgemmTiled::new(jit, 16)?;
    let launch = |_| tiled.launch(Transposes::ALL[0], (side, side, side), (1.0, 0.0), [&a, &b, &d]);
    let launch: &dyn Fn(usize) -> Result<(), CudaError> = &launch;
    meter.find_lag(&TimedLaunch { launch, copies: 1 })
}

/// Seconds by which the counter is behind, from a step of load between two moments: what it has not counted yet of the load.
pub(crate) fn lag_s(ticks: &[Tick], (start, end): (Instant, Instant)) -> Option<f64> {
    let before: Vec<&Tick> = ticks.iter().filter(|tick| tick.at <= start).collect();
    let during: Vec<&Tick> = ticks
        .iter()
        .filter(|tick| start < tick.at && tick.at <= end)
        .collect();
    let (first, idle_end) = (before.first()?, before.last()?);
    let loaded = &during[during.len() / 2..];
    let (low, high) = (loaded.first()?, loaded.last()?);
    let slope = |a: &Tick, b: &Tick| {
        let time_s = (b.at - a.at).as_secs_f64();
        (time_s > 0.0).then(|| (b.energy_j - a.energy_j) / time_s)
    };
    let (idle_w, load_w) = (slope(first, idle_end)?, slope(low, high)?);
    if load_w < 1.5 * idle_w {
        return None;
    }
    let since_s = (high.at - idle_end.at).as_secs_f64();
    let loaded_s = (high.energy_j - idle_end.energy_j - idle_w * since_s) / (load_w - idle_w);
    Some((high.at - start).as_secs_f64() - loaded_s)
}
