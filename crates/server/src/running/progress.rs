//! Whether the engine gets on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the engine's thread leaves for those who ask how it is.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    /// When the last step ended or work came, in milliseconds since `began`.
    last_ms: AtomicU64,
    /// Whether there is work.
    busy: AtomicBool,
    /// Whether the thread is there.
    alive: AtomicBool,
}

/// How the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It gets on, or has nothing to do.
    Well,
    /// There is work, and no step has ended for so long.
    Stalled(Duration),
    /// Its thread is gone.
    Stopped,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            alive: AtomicBool::new(true),
        }
    }
}

impl Progress {
    /// A step ended, or work came.
    pub fn step(&self) {
        let now_ms = self.began.elapsed().as_millis() as u64;
        self.last_ms.store(now_ms, Ordering::Relaxed);
        self.busy.store(true, Ordering::Release);
    }

    /// Nothing is left to do.
    pub fn rest(&self) {
        self.busy.store(false, Ordering::Release);
    }

    /// The thread ends.
    pub fn stop(&self) {
        self.alive.store(false, Ordering::Release);
    }

    /// How the engine is; a step may take `stall`.
    pub fn health(&self, stall: Duration) -> Health {
        if !self.alive.load(Ordering::Acquire) {
            return Health::Stopped;
        }
        if !self.busy.load(Ordering::Acquire) {
            return Health::Well;
        }
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        let silent = self.began.elapsed().saturating_sub(last);
        match silent > stall {
            true => Health::Stalled(silent),
            false => Health::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_without_steps_is_a_stall() {
        let progress = Progress::default();
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(60));
        assert_eq!(progress.health(short), Health::Well);
        progress.step();
        std::thread::sleep(Duration::from_millis(20));
        assert!(matches!(progress.health(short), Health::Stalled(_)));
        assert_eq!(progress.health(long), Health::Well);
        progress.rest();
        assert_eq!(progress.health(short), Health::Well);
        progress.stop();
        assert_eq!(progress.health(long), Health::Stopped);
    }
}
