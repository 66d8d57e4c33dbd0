//! Mean and standard error of values that come one at a time.

/// Running mean and variance (Welford, 1962).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    pub(super) count: usize,
    pub(super) mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes one more value.
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value - self.mean);
    }

    /// Standard error of the mean; 0 where a single value allows none.
    pub(super) fn stderr(&self) -> f64 {
        match self.count {
            0 | 1 => 0.0,
            n => (self.squares / (n - 1) as f64 / n as f64).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_agree_with_the_textbook() {
        let mut moments = Moments::default();
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            moments.add(value);
        }
        // Mean 5, squared deviations 32: variance 32 / 7, its root by the root of 8.
        assert_eq!(moments.mean, 5.0);
        assert!((moments.stderr() - (32.0f64 / 7.0 / 8.0).sqrt()).abs() < 1e-15);
        assert_eq!(Moments::default().stderr(), 0.0);
    }
}
