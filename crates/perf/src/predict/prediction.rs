//! A prediction: a value with the interval that holds nine of ten measurements, for time, power, energy and their rates.

use serde::Serialize;

/// Share of measurements that intervals are to hold.
pub const COVERAGE: f64 = 0.9;

/// A value with the interval that holds [`COVERAGE`] of measurements on shapes the model has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The prediction.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Around `value`, as far up as down in ratio: `value / exp(width)` to `value * exp(width)`.
    pub(crate) fn around(value: f64, width: f64) -> Self {
        let factor = width.exp();
        Self {
            value,
            low: value / factor,
            high: value * factor,
        }
    }

    /// What a rate is when this is what it divides: `amount / self`.
    pub(crate) fn rate(&self, amount: f64) -> Self {
        Self {
            value: amount / self.value,
            low: amount / self.high,
            high: amount / self.low,
        }
    }

    /// Whether it holds a measurement.
    pub fn holds(&self, measured: f64) -> bool {
        (self.low..=self.high).contains(&measured)
    }
}

/// What one product costs. Power and energy are there where the machine's rows had them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// Seconds a product.
    pub time_s: Interval,
    /// Mean power of the machine while the product runs over and over, idle power included.
    pub power_w: Option<Interval>,
    /// Energy of one product.
    pub energy_j: Option<Interval>,
    /// Operations a second.
    pub ops_per_s: Interval,
    /// Operations a joule: a second's operations over the power.
    pub ops_per_j: Option<Interval>,
    /// Whether the query lies outside what was measured (sizes, or a configuration in a group length or output type that
    /// was not): then the interval promises nothing.
    pub extrapolated: bool,
}

/// What is to be least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Objective {
    /// Seconds.
    Time,
    /// Joules.
    Energy,
    /// Joules times seconds: the energy-delay product.
    Edp,
}

impl Prediction {
    /// The figure to make least; `None` where the machine's rows had no energy.
    pub fn cost(&self, by: Objective) -> Option<f64> {
        match by {
            Objective::Time => Some(self.time_s.value),
            Objective::Energy => Some(self.energy_j?.value),
            Objective::Edp => Some(self.energy_j?.value * self.time_s.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_of_a_rate_is_that_of_the_time_turned_over() {
        let time = Interval::around(2.0, 2.0f64.ln());
        assert!((time.low - 1.0).abs() < 1e-12 && (time.high - 4.0).abs() < 1e-12);
        let rate = time.rate(8.0);
        assert_eq!(
            (rate.value, rate.low, rate.high),
            (4.0, 8.0 / time.high, 8.0 / time.low)
        );
        assert!(rate.holds(2.1) && !rate.holds(1.9));
    }
}
