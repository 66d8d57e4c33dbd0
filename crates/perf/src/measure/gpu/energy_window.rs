//! Measures the energy of a product on a card. The product runs over and over, first until the power has settled, then
//! during a window of whole ticks of the driver's counter. The counter is behind by a lag, so the value that belongs to
//! an end of the window is read from the log of the counter one lag later. Power is the difference of the two values
//! divided by the time between them; the energy of one product is that power times the mean time of a product inside the
//! window.

use std::time::{Duration, Instant};

use dualgrain_cuda::{Graph, Steady};

use super::counter::CounterLog;
use super::meter::{LOOK, Meter, SLOW_S};
use super::ticks::{TickTimes, power_between};
use crate::data::{QualityFlag, Row};
use crate::error::PerfError;
use crate::measure::times::set_times;

/// Least warm-up before the window may begin.
const ENERGY_WARM: Duration = Duration::from_millis(60);
/// The product runs on for so long after the window, so that an error of the lag does no harm.
const ENERGY_TAIL: Duration = Duration::from_millis(15);
/// Repetitions inside the window may lie so far apart: at the power limit the clocks go up and down all the time.
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
/// Ticks among which those of a window are looked for.
const RECENT_TICKS: usize = 200;

impl<'a> Meter<'a> {
    /// Runs a recorded product until its window has passed, and fills in the time.
    pub(crate) fn window(
        &self,
        row: &mut Row,
        graph: &Graph<'_>,
        (count, one_s): (usize, f64),
        tick_times: &TickTimes,
    ) -> Result<Option<EnergyWindow>, PerfError> {
        // Two of a very long product would have to be waited for.
        let queued = if one_s * count as f64 > SLOW_S { 1 } else { 2 };
        let mut steady = Steady::new(self.device, graph)?;
        // The counter's ticks show moments that are a lag ago: the window begins and ends at such moments.
        let start = tick_times.after(Instant::now() + ENERGY_WARM + self.lag) - self.lag;
        let ticks = |count: usize| Duration::from_secs_f64(count as f64 * tick_times.tick_s);
        let mut end = start + ticks(self.ticks);
        let mut is_decided = self.ticks >= LIMIT_TICKS;
        let (mut first, mut last) = (None, None);
        // The window's first tick is known by then.
        let least = start + self.lag + ticks(3) / 2;
        while Instant::now() < end.max(least) + ENERGY_TAIL || steady.num_passed() < 2 {
            steady.keep(queued)?;
            let (now, passed) = (Instant::now(), steady.num_passed());
            if now >= start {
                first.get_or_insert(passed);
            }
            if now <= end {
                last = Some(passed);
            }
            if !is_decided && let Some(power_w) = self.power_of(tick_times, (start, start + ticks(1))) {
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
        flag_unsteady(row);
        Ok((mean_s > 0.0).then_some(EnergyWindow { start, end, mean_s }))
    }

    /// Power between two ticks, once the counter has reached them.
    fn power_of(&self, tick_times: &TickTimes, (from, to): (Instant, Instant)) -> Option<f64> {
        // The counter is not asked before it can know.
        let counter = self.counter.as_ref().filter(|_| Instant::now() > to + self.lag)?;
        let span = (from + self.lag, to + self.lag);
        Some(power_between(&counter.last(RECENT_TICKS), tick_times, span)?.0)
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

    /// Whether a row that is there already has no energy, or one of a window that was too short for its power, and this card
    /// can do better.
    pub fn lacks_energy(&self, row: &Row) -> bool {
        let can = self.counter.as_ref().and_then(CounterLog::tick_times);
        can.is_some_and(|tick_times| lacks_energy(row, self.limit_w(), tick_times.tick_s))
    }

    /// Fills in the energy of a window when the counter has reached it; `false` until then. A counter that stopped
    /// leaves a row without energy.
    pub fn settle(&self, row: &mut Row, window: &EnergyWindow) -> bool {
        let Some((counter, tick_times)) = self
            .counter
            .as_ref()
            .and_then(|counter| Some((counter, counter.tick_times()?)))
        else {
            return true;
        };
        let span = (window.start + self.lag, window.end + self.lag);
        let Some((power_w, window_s)) = power_between(&counter.last(RECENT_TICKS), &tick_times, span) else {
            return Instant::now() > span.1 + NO_TICK;
        };
        row.power_w = Some(power_w);
        row.energy_j = Some(power_w * window.mean_s);
        row.energy_window_s = Some(window_s);
        row.energy_runs = ((window_s / window.mean_s) as usize).max(1);
        true
    }
}

/// A span in which one product ran steadily, whose energy the counter will show a lag later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnergyWindow {
    start: Instant,
    end: Instant,
    /// Mean seconds of a product.
    mean_s: f64,
}

/// A sound row without energy, or with that of a short window at the power limit.
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

/// Flags a row whose repetitions lie further apart than the swinging clocks of a card at its power limit put them.
fn flag_unsteady(row: &mut Row) {
    if let (Some(q1), Some(time_s), Some(q3)) = (row.time_q1_s, row.time_s, row.time_q3_s) {
        row.flag = (q3 - q1 > MOST_SPREAD_AT_LIMIT * time_s).then_some(QualityFlag::Unsteady);
    }
}

/// Times between two counts of replays; of products longer than the window all but the first.
fn inside(times: &[f64], (first, last): (usize, usize)) -> &[f64] {
    match times.get(first..last) {
        Some(inside) if inside.len() > 1 => inside,
        _ => times.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(times),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lack_energy_when_they_have_none_or_a_short_region_at_the_limit() {
        let row = |power_w: Option<f64>, window_s: f64, throttled: bool| Row {
            verified: "naive".to_owned(),
            time_s: Some(1e-5),
            power_w,
            energy_window_s: power_w.map(|_| window_s),
            throttle_reasons: Some(u64::from(throttled) * POWER_CAP),
            ..Row::blank("cublas_bf16", (1, 1, 1))
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
            flag: Some(QualityFlag::Wrong),
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
