//! The counter of energy of the device that serves: a card's own, or the processor packages'.

use std::sync::{Mutex, PoisonError};

use dualgrain::AnyDevice;
use dualgrain_perf::Rapl;
use dualgrain_server::Energy;

/// The counter that can be read here; `None` where there is none.
pub fn counter(device: &AnyDevice) -> Option<Energy> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = device.gpu() {
        return card::counter(gpu.info());
    }
    let _ = device;
    packages(Rapl::open().ok()?)
}

fn packages(rapl: Rapl) -> Option<Energy> {
    let state = Mutex::new((rapl.read()?, 0.0));
    let read_j = move || {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = rapl.read()?;
        let used_j = rapl.between_j(&state.0, &now);
        *state = (now, state.1 + used_j);
        Some(state.1)
    };
    Some(Energy::new(
        "processor packages (RAPL), everything that runs on them",
        read_j,
    ))
}

#[cfg(feature = "cuda")]
mod card {
    use std::sync::{Arc, Mutex, PoisonError, Weak};
    use std::time::{Duration, Instant};

    use dualgrain_cuda::{GpuInfo, Nvml, NvmlDevice};
    use dualgrain_server::Energy;

    /// The counter moves every 20 to 100 ms, steps take fewer: between its movements the power of the last ones is assumed.
    const LOOK_PAUSE: Duration = Duration::from_millis(10);
    /// Power is assumed for no longer than that.
    const MOST_ASSUMED_S: f64 = 0.2;

    /// What was seen of a counter.
    struct Seen {
        moved: Instant,
        shown_j: f64,
        power_w: f64,
        told_j: f64,
    }

    pub fn counter(info: &GpuInfo) -> Option<Energy> {
        let card = Nvml::open().and_then(|nvml| nvml.device(info)).ok()?;
        let seen = Arc::new(Mutex::new(Seen::new(card.energy_j().ok()?, Instant::now())));
        let watched = Arc::downgrade(&seen);
        let watch = move || watch(&card, &watched);
        std::thread::Builder::new()
            .name("energy".into())
            .spawn(watch)
            .ok()?;
        let read_j = move || {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            Some(seen.now_j(Instant::now()))
        };
        Some(Energy::new(format!("{} (its own counter)", info.name), read_j))
    }

    /// Looks at the counter until nobody asks for it any more.
    fn watch(card: &NvmlDevice, seen: &Weak<Mutex<Seen>>) {
        while let Some(seen) = seen.upgrade() {
            if let Ok(shown_j) = card.energy_j() {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.look(shown_j, Instant::now());
            }
            drop(seen);
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    impl Seen {
        fn new(shown_j: f64, now: Instant) -> Self {
            Self {
                moved: now,
                shown_j,
                power_w: 0.0,
                told_j: shown_j,
            }
        }

        fn look(&mut self, shown_j: f64, now: Instant) {
            if shown_j > self.shown_j {
                let passed_s = (now - self.moved).as_secs_f64();
                self.power_w = (shown_j - self.shown_j) / passed_s.max(1e-3);
                (self.moved, self.shown_j) = (now, shown_j);
            }
        }

        /// Joules by now; they never fall.
        fn now_j(&mut self, now: Instant) -> f64 {
            let passed_s = now.saturating_duration_since(self.moved).as_secs_f64();
            let assumed_j = self.power_w * passed_s.min(MOST_ASSUMED_S);
            self.told_j = self.told_j.max(self.shown_j + assumed_j);
            self.told_j
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn between_movements_the_last_power_is_assumed_and_joules_never_fall() {
            let begun = Instant::now();
            let at = |ms: u64| begun + Duration::from_millis(ms);
            let mut seen = Seen::new(100.0, begun);
            assert_eq!(seen.now_j(at(50)), 100.0, "no power is known yet");
            seen.look(100.0, at(60));
            seen.look(150.0, at(100));
            assert_eq!(seen.now_j(at(100)), 150.0);
            assert!((seen.now_j(at(150)) - 175.0).abs() < 1e-9);
            // The counter shows less than was assumed: it waits until the counter has passed.
            seen.look(160.0, at(200));
            assert!(seen.now_j(at(210)) >= 175.0);
            seen.look(300.0, at(300));
            let later = seen.now_j(at(10_000));
            assert!((later - 580.0).abs() < 1e-9, "{later}");
        }
    }
}
