//! What a card's own meters say at one moment: for the headers of records and for `doctor`.

use std::fmt;

use dualgrain_cuda::{CudaError, GpuInfo, Nvml, NvmlDevice, throttle_words};
use serde::Serialize;

/// Readings; those the card does not give are missing, and the reason is there when none can be had.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CardReading {
    driver: Option<String>,
    sm_clock_hz: Option<f64>,
    max_sm_clock_hz: Option<f64>,
    memory_clock_hz: Option<f64>,
    power_w: Option<f64>,
    power_limit_w: Option<f64>,
    temperature_c: Option<f64>,
    throttled_by: Option<String>,
    problem: Option<String>,
}

impl CardReading {
    /// Asks now.
    pub fn of(device: &GpuInfo) -> Self {
        Self::read(device).unwrap_or_else(|error| Self {
            problem: Some(error.to_string()),
            ..Self::default()
        })
    }

    fn read(device: &GpuInfo) -> Result<Self, CudaError> {
        let nvml = Nvml::open()?;
        let card: NvmlDevice = nvml.device(device)?;
        Ok(Self {
            driver: nvml.driver_version().ok(),
            sm_clock_hz: card.sm_clock_hz().ok(),
            max_sm_clock_hz: card.max_sm_clock_hz().ok(),
            memory_clock_hz: card.memory_clock_hz().ok(),
            power_w: card.power_w().ok(),
            power_limit_w: card.power_limit_w().ok(),
            temperature_c: card.temperature_c().ok(),
            throttled_by: card.throttle_reasons().ok().map(throttle_words),
            problem: None,
        })
    }
}

impl fmt::Display for CardReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            return write!(f, "clocks and power not read: {problem}");
        }
        let number = |value: Option<f64>, unit: f64| {
            value.map_or("unknown".to_owned(), |value| format!("{:.0}", value / unit))
        };
        write!(
            f,
            "driver {}; multiprocessors at {} of {} MHz, memory at {} MHz; {} W of {} W; {} C; throttled by {}",
            self.driver.as_deref().unwrap_or("unknown"),
            number(self.sm_clock_hz, 1e6),
            number(self.max_sm_clock_hz, 1e6),
            number(self.memory_clock_hz, 1e6),
            number(self.power_w, 1.0),
            number(self.power_limit_w, 1.0),
            number(self.temperature_c, 1.0),
            self.throttled_by.as_deref().unwrap_or("unknown"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_says_what_is_known_and_what_is_not() {
        let reading = CardReading {
            sm_clock_hz: Some(1.98e9),
            power_w: Some(699.6),
            throttled_by: Some("power limit".to_owned()),
            ..CardReading::default()
        };
        assert_eq!(
            reading.to_string(),
            "driver unknown; multiprocessors at 1980 of unknown MHz, memory at unknown MHz; 700 W of unknown W; unknown C; \
             throttled by power limit"
        );
    }
}
