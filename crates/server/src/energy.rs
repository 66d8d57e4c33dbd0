//! Energy: what a counter shows from step to step, shared by the tokens that were run.

use std::fmt;
use std::sync::Arc;

/// A counter of energy, as the machine has it.
#[derive(Clone)]
pub struct Energy {
    /// What it counts, for a person: `NVIDIA H200`, `processor packages`.
    pub source: String,
    read_j: Arc<dyn Fn() -> Option<f64> + Send + Sync>,
}

impl fmt::Debug for Energy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Energy({})", self.source)
    }
}

impl Energy {
    /// `read_j` gives joules since any moment, which never fall; `None` where the counter can not be read now.
    pub fn new(source: impl Into<String>, read_j: impl Fn() -> Option<f64> + Send + Sync + 'static) -> Self {
        Self {
            source: source.into(),
            read_j: Arc::new(read_j),
        }
    }
}

/// Joules as answers say them, to a millionth.
pub fn rounded(energy_j: f64) -> f64 {
    (energy_j * 1e6).round() / 1e6
}

/// A counter and what it showed last.
#[derive(Debug)]
pub struct Meter {
    counter: Option<Energy>,
    last_j: Option<f64>,
}

impl Meter {
    /// Reads `counter` from now on.
    pub fn new(counter: Option<Energy>) -> Self {
        Self {
            counter,
            last_j: None,
        }
    }

    /// Whether there is a counter.
    pub fn counts(&self) -> bool {
        self.counter.is_some()
    }

    /// Forgets what was used while nothing ran.
    pub fn skip(&mut self) {
        self.last_j = self.read_j();
    }

    /// Joules since the last look.
    pub fn since_last_j(&mut self) -> f64 {
        let now = self.read_j();
        let used = now
            .zip(self.last_j)
            .map_or(0.0, |(now, last)| (now - last).max(0.0));
        self.last_j = now.or(self.last_j);
        used
    }

    fn read_j(&self) -> Option<f64> {
        (self.counter.as_ref()?.read_j)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn only_what_was_used_since_the_last_look_counts_and_a_gap_is_not_lost() {
        let shown = Mutex::new(
            [
                Some(5.0),
                Some(7.5),
                None,
                Some(9.0),
                Some(8.0),
                Some(20.0),
                Some(21.0),
            ]
            .into_iter(),
        );
        let counter = Energy::new("a test", move || shown.lock().unwrap().next().flatten());
        let mut meter = Meter::new(Some(counter));
        assert!(meter.counts());
        meter.skip();
        assert_eq!([(); 4].map(|()| meter.since_last_j()), [2.5, 0.0, 1.5, 0.0]);
        meter.skip();
        assert_eq!(meter.since_last_j(), 1.0);
        let mut none = Meter::new(None);
        assert!(!none.counts() && none.since_last_j() == 0.0);
    }
}
