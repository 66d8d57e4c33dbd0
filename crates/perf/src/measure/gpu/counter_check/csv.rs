//! Writes the figures and the samples as CSV.

use std::io::Write as _;
use std::path::Path;

use dualgrain_cuda::Gpu;

use super::comparison::REPEATS;
use super::figures::{CounterComparison, PowerSample};
use crate::error::PerfError;
use crate::measure::gpu::manifest::driver_words;
use crate::measure::gpu::meter::Meter;

/// Every movement of the counter and every sample of power, by seconds from the first.
pub(crate) fn write_samples(
    path: &Path,
    meter: &Meter<'_>,
    samples: &[PowerSample],
) -> Result<(), PerfError> {
    let ticks = meter
        .counter
        .as_ref()
        .map_or_else(Vec::new, |counter| counter.ticks());
    let Some(first) = ticks.first().map(|tick| tick.at) else {
        return Ok(());
    };
    let mut text = "at_s,counter_j,instant_w,average_w\n".to_owned();
    for tick in &ticks {
        text += &format!("{:.4},{:.3},,\n", (tick.at - first).as_secs_f64(), tick.energy_j);
    }
    for sample in samples {
        let at_s = sample.at.saturating_duration_since(first).as_secs_f64();
        let instant = sample
            .instant_w
            .map_or(String::new(), |power| format!("{power:.1}"));
        text += &format!("{at_s:.4},,{instant},{:.1}\n", sample.average_w);
    }
    std::fs::write(path, text).map_err(PerfError::io(path))
}

pub(crate) fn write(
    path: &Path,
    device: &Gpu,
    version: &str,
    (tick_s, lag_s): (Option<f64>, f64),
    found: &[CounterComparison],
) -> Result<(), PerfError> {
    let mut text = format!(
        "# {}, {}; dualgrain {version}\n\
         # energy counter moves every {:.4} s and is {lag_s:.3} s behind; long regions of the counter against samples of power, then {REPEATS} short regions \
         as rows have them\n\
         load,region_s,counter_j,instant_samples_j,average_samples_j,samples,counter_over_samples,short_window_s,short_power_w,\
         short_energy_spread\n",
        device.info().name,
        driver_words(),
        tick_s.unwrap_or(f64::NAN)
    );
    text.extend(found.iter().map(line));
    let mut file = std::fs::File::create(path).map_err(PerfError::io(path))?;
    file.write_all(text.as_bytes()).map_err(PerfError::io(path))
}

/// The figures of one load as a line of CSV.
fn line(figures: &CounterComparison) -> String {
    let powers = figures.repeated_w.iter().map(|power| format!("{power:.1}"));
    let instant_j = figures.instant_j.map(|energy| format!("{energy:.2}"));
    format!(
        "{},{:.4},{:.2},{},{:.2},{},{:.4},{:.4},{},{:.4}\n",
        figures.load,
        figures.region_s,
        figures.counter_j,
        instant_j.unwrap_or_default(),
        figures.average_j,
        figures.samples,
        1.0 + figures.deviation(),
        figures.window_s,
        powers.collect::<Vec<_>>().join(" "),
        figures.spread()
    )
}
