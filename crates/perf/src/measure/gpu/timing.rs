//! Times a product on a card. Launches are recorded as a graph of some milliseconds, and their weights rotate through
//! copies that together exceed the second-level cache. After a warm-up every replay of the graph is a repetition, timed
//! by events on the card. A product that draws much power is warmed up longer, unless the product before it drew as much:
//! the clocks of a card follow its power limit within some 20 ms.

use std::time::{Duration, Instant};

use dualgrain_cuda::{Graph, Steady};

use super::counter::CounterLog;
use super::energy_window::EnergyWindow;
use super::meter::{ENERGY_REPLAY_S, MOST_LAUNCHES, Meter, SLOW_S, TimedLaunch, record};
use crate::data::{QualityFlag, Row};
use crate::error::PerfError;
use crate::measure::times::set_times;

/// A repetition takes about this long; longer where power has to settle, and where energy is measured anyway.
const REPLAY_S: f64 = 1.3e-3;
const HEAVY_REPLAY_S: f64 = 2.5e-3;
/// Repetitions, and those of products that take longer than `SLOW_S`.
const REPEATS: usize = 5;
const SLOW_REPEATS: usize = 2;
/// Warm-up of products above `HEAVY_OPS_PER_S`, after light ones and after others of their kind.
const HEAVY_WARM_S: f64 = 0.04;
const WARM_S: f64 = 4e-3;
const HEAVY_OPS_PER_S: f64 = 3e14;
/// Another product counts as before when it ended so recently.
const RECENT: Duration = Duration::from_millis(25);
/// Repetitions shorter than this are below what events resolve.
const RESOLUTION_S: f64 = 5e-5;

impl<'a> Meter<'a> {
    /// Fills in the time; where energy is asked for and can be had, says which window [`Meter::settle`] is to look at.
    pub fn measure(
        &self,
        row: &mut Row,
        timed: &TimedLaunch<'_>,
        energy: bool,
    ) -> Result<Option<EnergyWindow>, PerfError> {
        let tick_times = self
            .counter
            .as_ref()
            .and_then(CounterLog::tick_times)
            .filter(|_| energy);
        let energy = tick_times.is_some();
        let one_s = self.estimate_s(timed)?;
        let heavy = row.ops() / one_s > HEAVY_OPS_PER_S;
        let replay_s = match (energy, heavy) {
            (true, _) => ENERGY_REPLAY_S,
            (false, true) => HEAVY_REPLAY_S,
            (false, false) => REPLAY_S,
        };
        let count = launches(replay_s, one_s, timed.copies);
        let graph = record(self.device, timed, count)?;
        let window = match tick_times {
            Some(tick_times) => self.window(row, &graph, (count, one_s), &tick_times)?,
            None => {
                self.steady_times(row, &graph, (count, one_s), heavy)?;
                None
            }
        };
        if row
            .time_s
            .is_some_and(|time_s| time_s * (count as f64) < RESOLUTION_S)
        {
            row.flag = Some(QualityFlag::BelowResolution);
        }
        self.last_heavy.set(heavy.then(Instant::now));
        Ok(window)
    }

    /// Fills in the time; once more, and longer, where it is unsteady: a neighbour's last milliseconds may have been in it.
    fn steady_times(
        &self,
        row: &mut Row,
        graph: &Graph<'_>,
        (count, one_s): (usize, f64),
        heavy: bool,
    ) -> Result<(), PerfError> {
        self.times(row, graph, (count, one_s), heavy)?;
        if row.flag == Some(QualityFlag::Unsteady) {
            row.flag = None;
            self.last_heavy.set(None);
            self.times(row, graph, (count, one_s), true)?;
        }
        Ok(())
    }

    fn times(
        &self,
        row: &mut Row,
        graph: &Graph<'_>,
        (count, one_s): (usize, f64),
        heavy: bool,
    ) -> Result<(), PerfError> {
        let replay_s = one_s * count as f64;
        let after_heavy = self.last_heavy.get().is_some_and(|end| end.elapsed() < RECENT);
        let warm_s = if heavy && !after_heavy {
            HEAVY_WARM_S
        } else {
            WARM_S
        };
        let slow = replay_s > SLOW_S;
        let warm = if slow {
            0
        } else {
            (warm_s / replay_s).ceil() as usize
        };
        let repeats = if slow { SLOW_REPEATS } else { REPEATS };
        let mut steady = Steady::new(self.device, graph)?;
        for _ in 0..warm + repeats {
            steady.launch()?;
        }
        // Still running: what the card says now is what it did.
        self.set_state(row);
        let times = steady.finish()?.into_iter().skip(warm);
        set_times(row, times.map(|time| time / count as f64).collect());
        Ok(())
    }
}

/// Launches that a replay of about `replay_s` holds: all copies once, unless that takes far too long.
fn launches(replay_s: f64, one_s: f64, copies: usize) -> usize {
    let fitting = |seconds: f64| (seconds / one_s) as usize;
    let count = fitting(replay_s).max(copies.min(fitting(3.0 * replay_s)));
    count.clamp(1, MOST_LAUNCHES)
}
