//! Whether the energy counter tells the truth: against power samples integrated over the same region, and against itself when
//! one configuration is measured again and again.

use super::counter::power_between;
use super::manifest::{driver_words, lag, libraries};
use super::meter::{Meter, Subject, record};
use super::sweep::open_meter;
use crate::data::Row;
use crate::error::PerfError;
use crate::measure::sweep::{Watch, blank_row};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dualgrain_cuda::{
    Analytic, Arena, Buffer, Cublas, CublasType, Gemm, GemmProblem, Gpu, Jit, NvmlDevice, Output,
    RandomOperands, SgemmTiled, Steady, rotation_copies, time_once_s,
};
use dualgrain_device::naive::Transposes;
use dualgrain_format::{GemmShape, GroupSize};
use serde::Serialize;

/// Length of the region whose power samples are added up.
const REGION: Duration = Duration::from_millis(2_000);
/// Before it begins: the averaged reading takes a second to follow.
const SETTLE: Duration = Duration::from_millis(1_200);
/// Repetitions of a row's own, short region.
const REPEATS: usize = 5;
/// Launches of the graph that is replayed, and how many are under way: asking for power takes milliseconds.
const REPLAY_S: f64 = 2e-2;
const AHEAD: usize = 3;
/// Between two samples.
const PAUSE: Duration = Duration::from_millis(2);

/// One load's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EnergyTruth {
    /// What ran.
    pub load: String,
    /// Length of the long region.
    pub region_s: f64,
    /// By the counter.
    pub counter_j: f64,
    /// By samples of the momentary power, if the driver has it.
    pub instant_j: Option<f64>,
    /// By samples of the averaged power.
    pub average_j: f64,
    /// Samples.
    pub samples: usize,
    /// Power of each short region, as rows have it.
    pub repeated_w: Vec<f64>,
    /// Energy of a product in each of them.
    pub repeated_j: Vec<f64>,
    /// Length of a short region.
    pub window_s: f64,
}

impl EnergyTruth {
    /// Counter over samples, less 1.
    pub fn deviation(&self) -> f64 {
        self.counter_j / self.instant_j.unwrap_or(self.average_j) - 1.0
    }

    /// Largest over least energy of the repetitions, less 1.
    pub fn spread(&self) -> f64 {
        let most = self.repeated_j.iter().copied().fold(0.0, f64::max);
        let least = self.repeated_j.iter().copied().fold(f64::INFINITY, f64::min);
        most / least - 1.0
    }
}

/// Checks the counter of card `index` under several loads and writes the figures to a CSV file.
///
/// # Errors
/// No card, no counter, or a call that failed.
pub fn check_energy(
    index: usize,
    ticks: usize,
    csv: &Path,
    version: &str,
    watch: &dyn Watch,
) -> Result<Vec<EnergyTruth>, PerfError> {
    let device = Gpu::open(index)?;
    let jit = Jit::new(&device)?;
    let mut meter = open_meter(&device, ticks, watch);
    let Some(card) = meter.card.clone() else {
        return Err(PerfError::NoCounter);
    };
    card.energy_j()?;
    meter.idle_power_w(1.5);
    let mut arena = Arena::new(&device, 4 << 30)?;
    let libraries = libraries(&device, &|line| watch.say(line));
    let operands = RandomOperands::new(&jit, &device);
    let Some(lag_s) = lag(&jit, &mut meter, &mut arena)?.map(|lag| lag.as_secs_f64()) else {
        return Err(PerfError::NoCounter);
    };
    let tick_s = meter.tick_s();
    let mut loads = Loads {
        device: &device,
        jit: &jit,
        operands: &operands,
        meter: &meter,
        card: &card,
        arena,
        samples: Vec::new(),
    };
    let mut found = Vec::new();
    if let Some(cublas) = &libraries.cublas {
        found.push(loads.cublas(cublas)?);
        watch.progress("cublas_bf16", 1, 4);
    }
    for (place, m) in [16, 1_024].into_iter().enumerate() {
        found.push(loads.w4a8((m, 8_192, 8_192))?);
        watch.progress("gemm_w4a8", place + 2, 4);
    }
    found.push(loads.tiled()?);
    write(csv, &device, version, (tick_s, lag_s), &found)?;
    write_samples(&csv.with_extension("samples.csv"), &meter, &loads.samples)?;
    Ok(found)
}

/// What runs while energy is read in both ways.
struct Loads<'a> {
    device: &'a Gpu,
    jit: &'a Jit,
    operands: &'a RandomOperands<'a>,
    meter: &'a Meter<'a>,
    card: &'a NvmlDevice,
    arena: Arena,
    samples: Vec<Sample>,
}

impl Loads<'_> {
    fn cublas(&mut self, cublas: &Cublas) -> Result<EnergyTruth, PerfError> {
        let shape = (4_096, 4_096, 4_096);
        let [a, b, d] = self.squares(4_096 * 4_096 * 2)?;
        self.operands.floats(&a, Output::Bf16, 1)?;
        self.operands.floats(&b, Output::Bf16, 2)?;
        let nt = Transposes { a: false, b: true };
        let launch = |_| cublas.launch(CublasType::Bf16, nt, shape, (1.0, 0.0), [&a, &b, &d]);
        let subject = Subject {
            launch: &launch,
            copies: 1,
        };
        self.one("cublas_bf16 4096x4096x4096", shape, &subject)
    }

    fn w4a8(&mut self, (m, n, k): (usize, usize, usize)) -> Result<EnergyTruth, PerfError> {
        self.arena.reset();
        let copies = rotation_copies(self.device, n * k / 2);
        let layers = self
            .operands
            .w4(&mut self.arena, (n, k), GroupSize::Along(128), copies, 3)?;
        let tokens = self.operands.tokens((m, k), 4)?;
        let d = self.arena.take(2 * m * n)?;
        let problem = GemmProblem {
            shape: GemmShape { m, n, k },
            group: GroupSize::Along(128),
            output: Output::Bf16,
        };
        let gemm = Gemm::chosen(self.jit, self.device, problem, &Analytic)?;
        let launch = |i: usize| gemm.launch(&layers[i], &tokens, &d);
        let subject = Subject {
            launch: &launch,
            copies,
        };
        self.one(&format!("gemm_w4a8 {m}x{n}x{k}"), (m, n, k), &subject)
    }

    fn tiled(&mut self) -> Result<EnergyTruth, PerfError> {
        let shape = (2_048, 2_048, 2_048);
        let [a, b, d] = self.squares(2_048 * 2_048 * 4)?;
        self.operands.floats(&a, Output::F32, 5)?;
        self.operands.floats(&b, Output::F32, 6)?;
        let tiled = SgemmTiled::new(self.jit, 16)?;
        let launch = |_| tiled.launch(Transposes::ALL[0], shape, (1.0, 0.0), [&a, &b, &d]);
        let subject = Subject {
            launch: &launch,
            copies: 1,
        };
        self.one("sgemm_tiled tile16 2048x2048x2048", shape, &subject)
    }

    /// Both operands and the output of a square product.
    fn squares(&mut self, size_bytes: usize) -> Result<[Buffer; 3], PerfError> {
        self.arena.reset();
        Ok([
            self.arena.take(size_bytes)?,
            self.arena.take(size_bytes)?,
            self.arena.take(size_bytes)?,
        ])
    }

    fn one(
        &mut self,
        load: &str,
        shape: (usize, usize, usize),
        subject: &Subject<'_>,
    ) -> Result<EnergyTruth, PerfError> {
        one(self.meter, self.card, load, shape, subject, &mut self.samples)
    }
}

/// What a card said of its power at a moment.
struct Sample {
    at: Instant,
    instant_w: Option<f64>,
    average_w: f64,
}

fn one(
    meter: &Meter<'_>,
    card: &NvmlDevice,
    load: &str,
    shape: (usize, usize, usize),
    subject: &Subject<'_>,
    samples: &mut Vec<Sample>,
) -> Result<EnergyTruth, PerfError> {
    let mut truth = long_region(meter, card, subject, samples)?;
    truth.load = load.to_owned();
    for _ in 0..REPEATS {
        let mut row: Row = blank_row(load, shape);
        if let Some(region) = meter.measure(&mut row, subject, true)? {
            while !meter.settle(&mut row, &region) {
                std::thread::sleep(PAUSE);
            }
        }
        truth.repeated_w.extend(row.power_w);
        truth.repeated_j.extend(row.energy_j);
        truth.window_s = row.energy_window_s.unwrap_or(0.0);
    }
    Ok(truth)
}

/// The counter and both power readings over one region of a steady load.
fn long_region(
    meter: &Meter<'_>,
    card: &NvmlDevice,
    subject: &Subject<'_>,
    samples: &mut Vec<Sample>,
) -> Result<EnergyTruth, PerfError> {
    let first = samples.len();
    let begun = run_and_sample(meter, card, subject, samples)?;
    let (start, end) = (begun + SETTLE, begun + SETTLE + REGION);
    let inside: Vec<&Sample> = samples[first..]
        .iter()
        .filter(|sample| start <= sample.at && sample.at <= end)
        .collect();
    let (power_w, region_s) = counted(meter, begun, (start, end))?;
    let sum = |value: &dyn Fn(&Sample) -> Option<f64>| -> Option<f64> {
        let values: Option<Vec<f64>> = inside.iter().map(|sample| value(sample)).collect();
        // Samples lie evenly: their mean is the mean of the time.
        values.map(|values| values.iter().sum::<f64>() / values.len().max(1) as f64 * region_s)
    };
    Ok(EnergyTruth {
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
    subject: &Subject<'_>,
    samples: &mut Vec<Sample>,
) -> Result<Instant, PerfError> {
    let device = meter.device;
    // A library's first call loads its kernels.
    (subject.launch)(0)?;
    device.synchronize()?;
    let one_s = time_once_s(device, || {
        (0..4).try_for_each(|i| (subject.launch)(i % subject.copies))
    })? / 4.0;
    let graph = record(device, subject, ((REPLAY_S / one_s) as usize).clamp(1, 4_000))?;
    let mut steady = Steady::new(device, &graph)?;
    let begun = Instant::now();
    while begun.elapsed() < SETTLE + REGION + meter.lag {
        steady.keep(AHEAD)?;
        let instant_w = card.power_instant_w().ok();
        samples.push(Sample {
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
        let Some((log, grid)) = meter.counter.as_ref().and_then(|log| Some((log, log.grid()?))) else {
            return Err(PerfError::NoCounter);
        };
        if let Some(found) = power_between(&log.ticks(), &grid, (start + meter.lag, end + meter.lag)) {
            return Ok(found);
        }
        if begun.elapsed() > 3 * (SETTLE + REGION) {
            return Err(PerfError::NoCounter);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Every movement of the counter and every sample of power, by seconds from the first.
fn write_samples(path: &Path, meter: &Meter<'_>, samples: &[Sample]) -> Result<(), PerfError> {
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

fn write(
    path: &Path,
    device: &Gpu,
    version: &str,
    (tick_s, lag_s): (Option<f64>, f64),
    found: &[EnergyTruth],
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
    for truth in found {
        let powers: Vec<String> = truth
            .repeated_w
            .iter()
            .map(|power| format!("{power:.1}"))
            .collect();
        text += &format!(
            "{},{:.4},{:.2},{},{:.2},{},{:.4},{:.4},{},{:.4}\n",
            truth.load,
            truth.region_s,
            truth.counter_j,
            truth
                .instant_j
                .map_or(String::new(), |energy| format!("{energy:.2}")),
            truth.average_j,
            truth.samples,
            1.0 + truth.deviation(),
            truth.window_s,
            powers.join(" "),
            truth.spread()
        );
    }
    let mut file = std::fs::File::create(path).map_err(PerfError::io(path))?;
    file.write_all(text.as_bytes()).map_err(PerfError::io(path))
}
