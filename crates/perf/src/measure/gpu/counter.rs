//! A log of a card's energy counter: a thread watches the counter and notes when it moves and what it then shows.
//!
//! NVML's counter moves in ticks, every 100 ms on an H200, and the value that it shows is old: it is the energy up to a
//! moment 20 to 40 ms ago. The log makes it possible to read the energy of a span of time after the span, when the card
//! already does something else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgrain_cuda::NvmlDevice;

use super::ticks::{Tick, TickTimes};

/// Pause between two looks when the counter is about to move.
const LOOK: Duration = Duration::from_micros(500);
/// After a tick nobody looks for this part of the time to the next.
const REST: f64 = 0.85;
/// Ticks that say where the grid of ticks lies.
const RECENT: usize = 25;
/// How old a value may be when the counter shows it.
const OLDEST: Duration = Duration::from_millis(40);

/// Watches a counter until it is dropped.
pub struct CounterLog {
    ticks: Arc<Mutex<Vec<Tick>>>,
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CounterLog {
    /// Begins to watch; `None` when the card shows no counter.
    pub fn start(card: &NvmlDevice) -> Option<Self> {
        let mut last_j = card.energy_j().ok()?;
        let (ticks, stops) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stop, card) = (Arc::clone(&ticks), Arc::clone(&stops), card.clone());
        let watch = move || {
            let mut last: Option<Instant> = None;
            let mut period = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let energy_j = card.energy_j();
                let at = Instant::now();
                match energy_j {
                    Ok(energy_j) if energy_j != last_j => {
                        last_j = energy_j;
                        let gap = last.map_or(Duration::ZERO, |last| at - last);
                        period = if period.is_zero() { gap } else { period.min(gap) };
                        last = Some(at);
                        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                        log.push(Tick { at, energy_j });
                        drop(log);
                        std::thread::sleep(period.mul_f64(REST));
                    }
                    _ => std::thread::sleep(LOOK),
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(watch).ok();
        thread.is_some().then_some(Self { ticks, stops, thread })
    }

    /// Mean power of a span, watts: between the first and the last tick that show moments inside the span. `None` where
    /// fewer than two do, as in spans below some 0.3 s.
    pub fn mean_power_w(&self, start: Instant, end: Instant) -> Option<f64> {
        mean_power_w(&self.ticks(), start, end)
    }

    /// All ticks so far.
    pub(crate) fn ticks(&self) -> Vec<Tick> {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last `count` ticks.
    pub(crate) fn last(&self, count: usize) -> Vec<Tick> {
        let ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        ticks[ticks.len().saturating_sub(count)..].to_vec()
    }

    /// The grid the ticks lie on, as the recent ones show it; `None` before there are some.
    pub(crate) fn tick_times(&self) -> Option<TickTimes> {
        TickTimes::of(&self.last(RECENT))
    }
}

fn mean_power_w(ticks: &[Tick], start: Instant, end: Instant) -> Option<f64> {
    let mut inside = ticks
        .iter()
        .filter(|tick| tick.at >= start + OLDEST && tick.at <= end);
    let first = inside.next()?;
    let last = inside.next_back()?;
    Some((last.energy_j - first.energy_j) / (last.at - first.at).as_secs_f64())
}

impl Drop for CounterLog {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_of_a_span_is_that_between_its_ticks_alone() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        // 100 W before the span, 400 W inside, 50 W behind it.
        let energies = [
            (0, 0.0),
            (100, 10.0),
            (200, 20.0),
            (300, 60.0),
            (400, 100.0),
            (500, 105.0),
        ];
        let ticks: Vec<Tick> = energies
            .iter()
            .map(|&(ms, energy_j)| Tick { at: at(ms), energy_j })
            .collect();
        let power_w = mean_power_w(&ticks, at(150), at(420)).unwrap();
        assert!((power_w - 400.0).abs() < 1e-6, "{power_w}");
        assert_eq!(mean_power_w(&ticks, at(150), at(290)), None, "one tick");
        assert_eq!(mean_power_w(&ticks, at(410), at(450)), None, "no tick");
        assert_eq!(mean_power_w(&[], at(0), at(900)), None);
    }
}
