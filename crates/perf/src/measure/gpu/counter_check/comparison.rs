//! Compares the counter with samples of the power under one load.

use std::time::{Duration, Instant};

use dualgrain_cuda::{NvmlDevice, Steady, time_once_s};

use super::figures::{CounterComparison, PowerSample};
use crate::data::Row;
use crate::error::PerfError;
use crate::measure::gpu::meter::{Meter, TimedLaunch, record};
use crate::measure::gpu::ticks::power_between;

/// Length of the region whose power samples are added up.
const REGION: Duration = Duration::from_millis(2_000);

/// Before it begins: the averaged reading takes a second to follow.
const SETTLE: Duration = Duration::from_millis(1_200);

/// Repetitions of a row's own, short region.
pub(crate) const REPEATS: usize = 5;

/// Launches of the graph that is replayed, and how many are under way: asking for power takes milliseconds.
const REPLAY_S: f64 = 2e-2;

const AHEAD: usize = 3;

/// Between two samples.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) fn one(
    meter: &Meter<'_>,
    card: &NvmlDevice,
    load: &str,
    shape: (usize, usize, usize),
    timed: &TimedLaunch<'_>,
    samples: &mut Vec<PowerSample>,
) -> Result<CounterComparison, PerfError> {
    let mut figures = long_region(meter, card, timed, samples)?;
    figures.load = load.to_owned();
    for _ in 0..REPEATS {
        let mut row: Row = Row::blank(load, shape);
        if let Some(window) = meter.measure(&mut row, timed, true)? {
            while !meter.settle(&mut row, &window) {
                std::thread::sleep(PAUSE);
            }
        }
        figures.repeated_w.extend(row.power_w);
        figures.repeated_j.extend(row.energy_j);
        figures.window_s = row.energy_window_s.unwrap_or(0.0);
    }
    Ok(figures)
}

/// The counter and both power readings over one region of a steady load.
fn long_region(
    meter: &Meter<'_>,
    card: &NvmlDevice,
    timed: &TimedLaunch<'_>,
    samples: &mut Vec<PowerSample>,
) -> Result<CounterComparison, PerfError> {
    let first = samples.len();
    let begun = run_and_sample(meter, card, timed, samples)?;
    let (start, end) = (begun + SETTLE, begun + SETTLE + REGION);
    let inside: Vec<&PowerSample> = samples[first..]
        .iter()
        .filter(|sample| start <= sample.at && sample.at <= end)
        .collect();
    let (power_w, region_s) = counted(meter, begun, (start, end))?;
    let sum = |value: &dyn Fn(&PowerSample) -> Option<f64>| -> Option<f64> {
        let values: Option<Vec<f64>> = inside.iter().map(|sample| value(sample)).collect();
        // Samples lie evenly: their mean is the mean of the time.
        values.map(|values| values.iter().sum::<f64>() / values.len().max(1) as f64 * region_s)
    };
    Ok(CounterComparison {
        load: String::new(),
        region_s,
        counter_j: power_w * region_s,
        instant_j: sum(&|sample| sample.instant_w),
        average_j: sum(&|sample| Some(sample.average_w)).unwrap_or(0.0),
        samples: inside.len(),
        repeated_w: Vec::new(),
        repeated_j: Vec::new(),
        window_s: 0.0,
    })
}

/// Keeps a load running until a region after its settling has passed, and asks for the power all the while; says when it began.
fn run_and_sample(
    meter: &Meter<'_>,
    card: &NvmlDevice,
    timed: &TimedLaunch<'_>,
    samples: &mut Vec<PowerSample>,
) -> Result<Instant, PerfError> {
    let device = meter.device;
    // A library's first call loads its kernels.
    (timed.launch)(0)?;
    device.synchronize()?;
    let one_s = time_once_s(device, || {
        (0..4).try_for_each(|i| (timed.launch)(i % timed.copies))
    })? / 4.0;
    let graph = record(device, timed, ((REPLAY_S / one_s) as usize).clamp(1, 4_000))?;
    let mut steady = Steady::new(device, &graph)?;
    let begun = Instant::now();
    while begun.elapsed() < SETTLE + REGION + meter.lag {
        steady.keep(AHEAD)?;
        let instant_w = card.power_instant_w().ok();
        samples.push(PowerSample {
            at: Instant::now(),
            instant_w,
            average_w: card.power_w()?,
        });
        std::thread::sleep(PAUSE);
    }
    steady.finish()?;
    Ok(begun)
}

/// Power and length of a region by the counter, as soon as it has moved past the region's end.
fn counted(
    meter: &Meter<'_>,
    begun: Instant,
    (start, end): (Instant, Instant),
) -> Result<(f64, f64), PerfError> {
    loop {
        let Some((log, tick_times)) = meter
            .counter
            .as_ref()
            .and_then(|log| Some((log, log.tick_times()?)))
        else {
            return Err(PerfError::NoCounter);
        };
        if let Some(found) = power_between(&log.ticks(), &tick_times, (start + meter.lag, end + meter.lag)) {
            return Ok(found);
        }
        if begun.elapsed() > 3 * (SETTLE + REGION) {
            return Err(PerfError::NoCounter);
        }
        std::thread::sleep(PAUSE);
    }
}
