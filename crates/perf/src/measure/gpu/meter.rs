//! The clock and the power meter of a card.
//!
//! Time: launches are recorded as a graph of some milliseconds, weights rotate through copies that pass the second-level cache
//! together, and after a warm-up each replay is a repetition, by events on the card. A product that draws much power is
//! warmed up longer, unless the one before it drew as much: the card's clocks follow its power limit within some 20 ms.
//!
//! Energy: the product runs over and over, first until the power has settled, then for whole ticks of the driver's counter. The
//! counter is behind, so what it showed for that span is read off its log a lag later (`gpu_counter`); power is the counter's
//! difference over the span, and the energy of one product is that power times the mean time of a product inside.

use super::counter::{CounterLog, Grid, lag_s, power_between};
use crate::data::{Mark, Row};
use crate::error::PerfError;
use crate::measure::sweep::{MOST_SPREAD, set_times};
use std::cell::Cell;
use std::time::{Duration, Instant};

use dualgrain_cuda::{CudaError, Gpu, Graph, NvmlDevice, Steady, time_once_s};

/// A repetition takes about this long; longer where power has to settle, and where energy is measured anyway.
const REPLAY_S: f64 = 1.3e-3;
const HEAVY_REPLAY_S: f64 = 2.5e-3;
const ENERGY_REPLAY_S: f64 = 5e-3;
/// Repetitions, and those of products that take longer than `SLOW_S`.
const REPEATS: usize = 5;
const SLOW_REPEATS: usize = 2;
const SLOW_S: f64 = 0.05;
/// Warm-up of products above `HEAVY_OPS_PER_S`, after light ones and after others of their kind.
const HEAVY_WARM_S: f64 = 0.04;
const WARM_S: f64 = 4e-3;
const HEAVY_OPS_PER_S: f64 = 3e14;
/// Another product counts as before when it ended so recently.
const RECENT: Duration = Duration::from_millis(25);
/// Launches of a graph, at most.
const MOST_LAUNCHES: usize = 1_500;
/// Least warm-up before an energy region may begin.
const ENERGY_WARM: Duration = Duration::from_millis(60);
/// The product runs on for so long after the region, so that an error of the lag does no harm.
const ENERGY_TAIL: Duration = Duration::from_millis(15);
/// Repetitions inside an energy region may lie so far apart: at the power limit the clocks go up and down all the time.
const MOST_SPREAD_AT_LIMIT: f64 = 0.4;
/// From this share of the power limit on the limiter holds a card back, and swings about once a second: the mean of this many
/// ticks of 0.1 s moves by 0.3 %, of two by 5 %.
const AT_LIMIT: f64 = 0.93;
const LIMIT_TICKS: usize = 10;
/// With the driver's word that power holds the clocks back, from this share on: inside a swing power is low, too.
const HELD_BACK: f64 = 0.75;
const POWER_CAP: u64 = 4;
/// A counter that does not move for so long is none.
const NO_TICK: Duration = Duration::from_secs(3);
/// The step of load that shows the lag.
const STEP: Duration = Duration::from_millis(1_500);
/// Ticks among which those of a region are looked for.
const RECENT_TICKS: usize = 200;
/// Pause between two looks at the queue.
const LOOK: Duration = Duration::from_micros(200);
/// Repetitions shorter than this are below what events resolve.
const RESOLUTION_S: f64 = 5e-5;

/// What is measured: launch `i` takes copy `i` of the weights.
pub(crate) struct Subject<'a> {
    pub launch: &'a dyn Fn(usize) -> Result<(), CudaError>,
    pub copies: usize,
}

/// A card that is measured.
pub(crate) struct Meter<'a> {
    pub device: &'a Device,
    pub card: Option<Card>,
    /// The energy counter, if the card shows one.
    pub counter: Option<CounterLog>,
    /// How far it is behind.
    pub lag: Duration,
    /// Ticks of an energy region.
    pub ticks: usize,
    last_heavy: Cell<Option<Instant>>,
}

/// A span in which one product ran steadily, whose energy the counter will show a lag later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region {
    start: Instant,
    end: Instant,
    /// Mean seconds of a product.
    mean_s: f64,
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

    /// Fills in the time; where energy is asked for and can be had, says which region [`Meter::settle`] is to look at.
    pub fn measure(
        &self,
        row: &mut Row,
        subject: &Subject<'_>,
        energy: bool,
    ) -> Result<Option<Region>, PerfError> {
        let grid = self
            .counter
            .as_ref()
            .and_then(CounterLog::grid)
            .filter(|_| energy);
        let energy = grid.is_some();
        let one_s = self.estimate_s(subject)?;
        let heavy = row.ops() / one_s > HEAVY_OPS_PER_S;
        let replay_s = match (energy, heavy) {
            (true, _) => ENERGY_REPLAY_S,
            (false, true) => HEAVY_REPLAY_S,
            (false, false) => REPLAY_S,
        };
        let fitting = |seconds: f64| (seconds / one_s) as usize;
        // All copies once, unless that takes far too long.
        let count = fitting(replay_s).max(subject.copies.min(fitting(3.0 * replay_s)));
        let count = count.clamp(1, MOST_LAUNCHES);
        let graph = record(self.device, subject, count)?;
        let mut region = None;
        if let Some(grid) = grid {
            region = self.region(row, &graph, (count, one_s), &grid)?;
        } else {
            self.times(row, &graph, (count, one_s), heavy)?;
            if row.mark == Some(Mark::Unsteady) {
                // Once more, longer: a neighbour's last milliseconds may have been in it.
                row.mark = None;
                self.last_heavy.set(None);
                self.times(row, &graph, (count, one_s), true)?;
            }
        }
        if row
            .time_s
            .is_some_and(|time_s| time_s * (count as f64) < RESOLUTION_S)
        {
            row.mark = Some(Mark::BelowResolution);
        }
        self.last_heavy.set(heavy.then(Instant::now));
        Ok(region)
    }

    fn estimate_s(&self, subject: &Subject<'_>) -> Result<f64, CudaError> {
        let once = |count: usize| {
            time_once_s(self.device, || {
                (0..count).try_for_each(|i| (subject.launch)(i % subject.copies))
            })
        };
        let first = once(1)?;
        let estimate = if first < 1e-3 { once(4)? / 4.0 } else { first };
        Ok(estimate.max(1e-6))
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

    fn region(
        &self,
        row: &mut Row,
        graph: &Graph<'_>,
        (count, one_s): (usize, f64),
        grid: &Grid,
    ) -> Result<Option<Region>, PerfError> {
        // Two of a very long product would have to be waited for.
        let ahead = if one_s * count as f64 > SLOW_S { 1 } else { 2 };
        let mut steady = Steady::new(self.device, graph)?;
        // The counter's ticks show moments that are a lag ago: the region begins and ends at such.
        let start = grid.after(Instant::now() + ENERGY_WARM + self.lag) - self.lag;
        let ticks = |count: usize| Duration::from_secs_f64(count as f64 * grid.tick_s);
        let mut end = start + ticks(self.ticks);
        let mut is_decided = self.ticks >= LIMIT_TICKS;
        let (mut first, mut last) = (None, None);
        // Its first tick is known by then.
        let least = start + self.lag + ticks(3) / 2;
        while Instant::now() < end.max(least) + ENERGY_TAIL || steady.num_passed() < 2 {
            steady.keep(ahead)?;
            let (now, passed) = (Instant::now(), steady.num_passed());
            if now >= start {
                first.get_or_insert(passed);
            }
            if now <= end {
                last = Some(passed);
            }
            if !is_decided && let Some(power_w) = self.power_of(grid, (start, start + ticks(1))) {
                is_decided = true;
                if self.is_held_back(power_w) {
                    end = start + ticks(LIMIT_TICKS);
                }
            }
            std::thread::sleep(LOOK);
        }
        self.set_state(row);
        let times: Vec<f64> = steady
            .finish()?
            .into_iter()
            .map(|time| time / count as f64)
            .collect();
        let inside = inside(&times, (first.unwrap_or(0), last.unwrap_or(0)));
        let mean_s = inside.iter().sum::<f64>() / inside.len().max(1) as f64;
        set_times(row, inside.to_vec());
        if let (Some(q1), Some(time_s), Some(q3)) = (row.time_q1_s, row.time_s, row.time_q3_s) {
            let limit = if q3 - q1 > MOST_SPREAD * time_s {
                MOST_SPREAD_AT_LIMIT
            } else {
                MOST_SPREAD
            };
            row.mark = (q3 - q1 > limit * time_s).then_some(Mark::Unsteady);
        }
        Ok((mean_s > 0.0).then_some(Region { start, end, mean_s }))
    }

    /// Power between two ticks of the grid, once the counter has reached them.
    fn power_of(&self, grid: &Grid, (from, to): (Instant, Instant)) -> Option<f64> {
        // The counter is not asked before it can know.
        let counter = self.counter.as_ref().filter(|_| Instant::now() > to + self.lag)?;
        let span = (from + self.lag, to + self.lag);
        Some(power_between(&counter.last(RECENT_TICKS), grid, span)?.0)
    }

    /// Whether the card draws what it may.
    fn is_held_back(&self, power_w: f64) -> bool {
        let Some(limit_w) = self.limit_w() else {
            return false;
        };
        let says_so = || {
            let reasons = self.card.as_ref().and_then(|card| card.throttle_reasons().ok());
            reasons.is_some_and(|reasons| reasons & POWER_CAP != 0)
        };
        power_w > AT_LIMIT * limit_w || (power_w > HELD_BACK * limit_w && says_so())
    }

    fn limit_w(&self) -> Option<f64> {
        self.card.as_ref()?.power_limit_w().ok()
    }

    /// Whether a row that is there already has no energy, or one of a region that was too short for its power, and this card
    /// can do better.
    pub fn lacks_energy(&self, row: &Row) -> bool {
        let can = self.counter.as_ref().and_then(CounterLog::grid);
        can.is_some_and(|grid| lacks_energy(row, self.limit_w(), grid.tick_s))
    }

    /// Fills in the energy of a region when the counter has reached it; `false` until then. A counter that stopped
    /// leaves a row without energy.
    pub fn settle(&self, row: &mut Row, region: &Region) -> bool {
        let Some((counter, grid)) = self
            .counter
            .as_ref()
            .and_then(|counter| Some((counter, counter.grid()?)))
        else {
            return true;
        };
        let span = (region.start + self.lag, region.end + self.lag);
        let Some((power_w, window_s)) = power_between(&counter.last(RECENT_TICKS), &grid, span) else {
            return Instant::now() > span.1 + NO_TICK;
        };
        row.power_w = Some(power_w);
        row.energy_j = Some(power_w * region.mean_s);
        row.energy_window_s = Some(window_s);
        row.energy_runs = ((window_s / region.mean_s) as usize).max(1);
        true
    }

    /// Measures how far the counter is behind, by a step of load after the idle time that came before.
    pub fn find_lag(&mut self, subject: &Subject<'_>) -> Result<Option<Duration>, PerfError> {
        let Some(counter) = &self.counter else {
            return Ok(None);
        };
        let one_s = self.estimate_s(subject)?;
        let idle_since = Instant::now();
        let graph = record(
            self.device,
            subject,
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

    /// Clocks, temperature and throttle reasons now; empty where they are hidden.
    fn set_state(&self, row: &mut Row) {
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
        Some(self.counter.as_ref()?.grid()?.tick_s)
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

/// A sound row without energy, or with that of a short region at the power limit.
fn lacks_energy(row: &Row, limit_w: Option<f64>, tick_s: f64) -> bool {
    let (Some(window_s), Some(power_w)) = (row.energy_window_s, row.power_w) else {
        return row.is_sound();
    };
    let at_limit = limit_w.is_some_and(|limit_w| {
        let says_so = row
            .throttle_reasons
            .is_some_and(|reasons| reasons & POWER_CAP != 0);
        power_w > AT_LIMIT * limit_w || (power_w > HELD_BACK * limit_w && says_so)
    });
    at_limit && window_s < 0.8 * LIMIT_TICKS as f64 * tick_s
}

/// Records `count` launches.
pub(crate) fn record<'a>(
    device: &Device,
    subject: &'a Subject<'a>,
    count: usize,
) -> Result<Graph<'a>, CudaError> {
    let launches = move || (0..count).try_for_each(|i| (subject.launch)(i % subject.copies));
    Graph::record(device, launches)
}

/// Times between two counts of replays; of products longer than the region all but the first.
fn inside(times: &[f64], (first, last): (usize, usize)) -> &[f64] {
    match times.get(first..last) {
        Some(inside) if inside.len() > 1 => inside,
        _ => times.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(times),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sweep::blank_row;

    #[test]
    fn rows_lack_energy_when_they_have_none_or_a_short_region_at_the_limit() {
        let row = |power_w: Option<f64>, window_s: f64, throttled: bool| Row {
            verified: "naive".to_owned(),
            time_s: Some(1e-5),
            power_w,
            energy_window_s: power_w.map(|_| window_s),
            throttle_reasons: Some(u64::from(throttled) * POWER_CAP),
            ..blank_row("cublas_bf16", (1, 1, 1))
        };
        let lacks = |row: &Row| lacks_energy(row, Some(700.0), 0.1);
        assert!(lacks(&row(None, 0.0, false)));
        assert!(lacks(&row(Some(690.0), 0.2, false)) && lacks(&row(Some(575.0), 0.2, true)));
        assert!(!lacks(&row(Some(690.0), 1.0, true)) && !lacks(&row(Some(575.0), 0.2, false)));
        assert!(
            !lacks(&row(Some(300.0), 0.2, true)),
            "the word was of the product before"
        );
        let wrong = Row {
            mark: Some(Mark::Wrong),
            ..row(None, 0.0, false)
        };
        assert!(!lacks(&wrong), "measured again without end");
        assert!(!lacks_energy(&row(Some(690.0), 0.2, true), None, 0.1));
    }

    #[test]
    fn replays_inside_a_region_count_and_of_long_ones_all_but_the_first() {
        let times = [9.0, 9.0, 1.0, 2.0, 3.0, 7.0];
        assert_eq!(inside(&times, (2, 5)), [1.0, 2.0, 3.0]);
        assert_eq!(inside(&[9.0, 1.0], (0, 0)), [1.0]);
        assert_eq!(inside(&[9.0], (0, 1)), [9.0]);
        assert!(inside(&[], (3, 9)).is_empty());
    }
}
