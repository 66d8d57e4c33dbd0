//! The ticks of an energy counter: the moments at which it moves lie at equal distances, and between two of them the mean
//! power is known.

use std::time::{Duration, Instant};

use crate::measure::times::quartiles;

/// The counter moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tick {
    pub at: Instant,
    pub energy_j: f64,
}

/// Evenly spaced ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TickTimes {
    /// One of them.
    pub origin: Instant,
    /// Seconds between two.
    pub tick_s: f64,
}

impl TickTimes {
    /// A tick is seen up to some milliseconds late; the median lateness of many is small.
    pub(crate) fn of(ticks: &[Tick]) -> Option<Self> {
        let (first, last) = (ticks.first()?, ticks.last()?);
        let gaps = ticks
            .windows(2)
            .map(|pair| (pair[1].at - pair[0].at).as_secs_f64());
        let [_, gap_s, _] = quartiles(gaps.collect())?;
        let count = ((last.at - first.at).as_secs_f64() / gap_s).round();
        if count < 3.0 {
            return None;
        }
        let tick_s = (last.at - first.at).as_secs_f64() / count;
        let late = ticks.iter().map(|tick| {
            let since_s = (last.at - tick.at).as_secs_f64();
            since_s - (since_s / tick_s).round() * tick_s
        });
        let [_, late_s, _] = quartiles(late.collect())?;
        let origin = match late_s >= 0.0 {
            true => last.at.checked_sub(Duration::from_secs_f64(late_s))?,
            false => last.at + Duration::from_secs_f64(-late_s),
        };
        Some(Self { origin, tick_s })
    }

    /// The first tick at or after a moment.
    pub fn after(&self, at: Instant) -> Instant {
        let tick_after = |to: Instant| {
            let since_s = (to - self.origin).as_secs_f64();
            self.origin + Duration::from_secs_f64((since_s / self.tick_s).ceil() * self.tick_s)
        };
        match at.checked_duration_since(self.origin) {
            Some(_) => tick_after(at),
            None => {
                let before_s = (self.origin - at).as_secs_f64();
                let back_s = (before_s / self.tick_s).floor() * self.tick_s;
                self.origin
                    .checked_sub(Duration::from_secs_f64(back_s))
                    .unwrap_or(self.origin)
            }
        }
    }
}

/// Mean power between the ticks nearest to two moments, and the time between them; `None` before the later one is there.
pub(crate) fn power_between(
    ticks: &[Tick],
    tick_times: &TickTimes,
    (from, to): (Instant, Instant),
) -> Option<(f64, f64)> {
    let distance = |tick: &Tick, at: Instant| {
        let (early, late) = (
            at.saturating_duration_since(tick.at),
            tick.at.saturating_duration_since(at),
        );
        early.max(late)
    };
    // The nearest one is known when one lies beyond.
    let half = Duration::from_secs_f64(0.5 * tick_times.tick_s);
    if ticks.last()?.at + half < to {
        return None;
    }
    let nearest = |at| ticks.iter().min_by_key(|tick| distance(tick, at));
    let (first, last) = (nearest(from)?, nearest(to)?);
    let seen_s = last.at.checked_duration_since(first.at)?.as_secs_f64();
    let time_s = (seen_s / tick_times.tick_s).round() * tick_times.tick_s;
    (time_s > 0.0).then(|| ((last.energy_j - first.energy_j) / time_s, time_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::gpu::lag::lag_s;

    /// Ticks every 0.1 s of a counter that is `lag_s` behind a load of 500 W from 1.03 s on, 100 W before; every third is seen late.
    fn ticks(start: Instant, lag_s: f64) -> Vec<Tick> {
        let energy = |t: f64| 100.0 * t + 400.0 * (t - 1.03).max(0.0);
        (0..30)
            .map(|i| {
                let t = 0.1 * f64::from(i);
                let late_s = if i % 3 == 0 { 0.004 } else { 0.0 };
                Tick {
                    at: start + Duration::from_secs_f64(t + late_s),
                    energy_j: energy(t - lag_s) + 1000.0,
                }
            })
            .collect()
    }

    #[test]
    fn lag_and_power_are_read_off_a_step() {
        let start = Instant::now() + Duration::from_secs(10);
        let at = |t: f64| start + Duration::from_secs_f64(t);
        for behind_s in [0.0, 0.12, 0.35] {
            let ticks = ticks(start, behind_s);
            let found = lag_s(&ticks, (at(1.03), at(2.9))).unwrap();
            assert!((found - behind_s).abs() < 0.01, "{found} {behind_s}");
            let tick_times = TickTimes::of(&ticks).unwrap();
            assert!((tick_times.tick_s - 0.1).abs() < 1e-3);
            let lag = Duration::from_secs_f64(behind_s);
            let from = tick_times.after(at(1.2) + lag);
            let to = from + Duration::from_secs_f64(0.2);
            let (power_w, time_s) = power_between(&ticks, &tick_times, (from, to)).unwrap();
            assert!((power_w - 500.0).abs() < 1.0, "{power_w}");
            assert!((time_s - 0.2).abs() < 1e-3);
        }
    }

    #[test]
    fn span_whose_end_the_counter_has_not_reached_has_no_power_yet() {
        let start = Instant::now() + Duration::from_secs(10);
        let ticks = ticks(start, 0.0);
        let tick_times = TickTimes::of(&ticks).unwrap();
        let at = |t: f64| start + Duration::from_secs_f64(t);
        assert!(power_between(&ticks, &tick_times, (at(2.8), at(3.1))).is_none());
        assert!(power_between(&ticks[..2], &tick_times, (at(0.0), at(0.1))).is_some());
        assert!(TickTimes::of(&ticks[..2]).is_none());
    }

    #[test]
    fn next_tick_lies_on_the_grid_before_and_after_its_origin() {
        let origin = Instant::now() + Duration::from_secs(10);
        let tick_times = TickTimes { origin, tick_s: 0.1 };
        let near = |a: Instant, b: Instant| a.max(b) - a.min(b) < Duration::from_micros(10);
        let at = |ms: u64| origin + Duration::from_millis(ms);
        assert!(near(tick_times.after(at(250)), at(300)));
        let earlier = origin - Duration::from_millis(250);
        assert!(near(
            tick_times.after(earlier),
            origin - Duration::from_millis(200)
        ));
    }
}
