//! Runs a sweep on a card, shape by shape.

use std::time::{Duration, Instant};

use dualgrain_cuda::{Arena, Freivalds, Gpu, Jit, Nvml, RandomOperands, rotation_copies};

use super::energy_window::EnergyWindow;
use super::libraries::{Libraries, libraries};
use super::manifest::manifest;
use super::meter::Meter;
use super::rows::{draws_energy, kernels};
use crate::data::{QualityFlag, Row};
use crate::error::PerfError;
use crate::measure::gpu::check::Checker;
use crate::measure::options::{SweepOptions, SweepSummary, Watch};
use crate::measure::space::ShapeTask;
use crate::measure::sweep::Sweep;

/// Memory for operands: enough for every product of the default space.
const ARENA_BYTES: usize = 20 << 30;
/// Copies that rotate, at most.
const MOST_COPIES: usize = 1_000;

/// Measures products on card `index`.
///
/// # Errors
/// No card or compiler, a folder of another machine, a call that failed. Rows measured until then are on disk.
pub fn sweep_gpu(index: usize, options: &SweepOptions, watch: &dyn Watch) -> Result<SweepSummary, PerfError> {
    let started = Instant::now();
    let device = Gpu::open(index)?;
    options.check(&kernels())?;
    let jit = Jit::new(&device)?;
    let mut meter = open_meter(&device, options.ticks, watch);
    let libraries = libraries(&device, &|line| watch.say(line));
    let mut arena = Arena::new(&device, ARENA_BYTES.min(device.free_bytes()? / 2))?;
    let manifest = manifest(options, &jit, &mut meter, &libraries, &mut arena)?;
    let (operands, freivalds) = (RandomOperands::new(&jit, &device), Freivalds::new(&jit, &device)?);
    let checker = Checker {
        jit: &jit,
        device: &device,
        operands: &operands,
        freivalds: &freivalds,
    };
    let sweep = Sweep::open(options, watch, &manifest, started)?;
    let gpu_sweep = GpuSweep {
        checker,
        meter,
        libraries,
        arena,
        sweep,
        pending: Vec::new(),
    };
    gpu_sweep.run()
}

/// A card's meter; why there is no energy is told.
pub(crate) fn open_meter<'a>(device: &'a Gpu, ticks: usize, watch: &dyn Watch) -> Meter<'a> {
    let card = Nvml::open().and_then(|nvml| nvml.device(device.info()));
    match &card {
        Err(error) => watch.say(&format!("no power, energy or clocks: {error}")),
        Ok(card) => {
            if let Err(error) = card.energy_j() {
                watch.say(&format!("rows get no energy: {error}"));
            }
        }
    }
    Meter::new(device, card.ok(), ticks)
}

pub(crate) struct GpuSweep<'a> {
    pub(crate) checker: Checker<'a>,
    pub(crate) meter: Meter<'a>,
    pub(crate) libraries: Libraries,
    pub(crate) arena: Arena,
    pub(crate) sweep: Sweep<'a>,
    /// Rows whose energy the counter has not reached yet.
    pending: Vec<(Row, EnergyWindow)>,
}

impl GpuSweep<'_> {
    fn run(mut self) -> Result<SweepSummary, PerfError> {
        let measured = self.measure_all();
        // Also after an error: what was measured until then is kept.
        while !self.pending.is_empty() {
            self.settle()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        measured?;
        Ok(self.sweep.ended())
    }

    fn measure_all(&mut self) -> Result<(), PerfError> {
        // Few are unsteady on a card; those of an earlier run have their turn among the others.
        self.sweep.is_retrying = true;
        let (shard, shards) = self.sweep.options.shard;
        let tasks = self.sweep.options.space.tasks();
        let mine: Vec<&ShapeTask> = tasks.iter().skip(shard).step_by(shards.max(1)).collect();
        for (place, task) in mine.iter().enumerate() {
            let (m, n, k) = task.shape;
            let detail = format!("{m} x {n} x {k}");
            self.sweep.watch.progress(&detail, place, mine.len());
            self.integers(task)?;
            self.floats(task)?;
            if self.sweep.is_cut {
                break;
            }
        }
        Ok(())
    }

    /// Keeps a row, or waits with it for the counter.
    pub(crate) fn keep(&mut self, row: Row, window: Option<EnergyWindow>) -> Result<(), PerfError> {
        match window {
            Some(window) => self.pending.push((row, window)),
            None => self.sweep.keep(&row)?,
        }
        self.settle()
    }

    /// Keeps the rows whose energy the counter shows by now.
    fn settle(&mut self) -> Result<(), PerfError> {
        let mut left = Vec::new();
        for (mut row, window) in std::mem::take(&mut self.pending) {
            if self.meter.settle(&mut row, &window) {
                self.sweep.keep(&row)?;
            } else {
                left.push((row, window));
            }
        }
        self.pending = left;
        Ok(())
    }

    pub(crate) fn draws_energy(&self, row: &Row, energy_share: f64) -> bool {
        draws_energy(self.sweep.options.space.seed, row, energy_share)
    }

    /// Whether the row is wanted and still to be measured: its energy too, if its share draws it.
    pub(crate) fn is_missing(&mut self, row: &Row, energy_share: f64) -> bool {
        let energy = self.draws_energy(row, energy_share);
        let meter = &self.meter;
        self.sweep.wants(&row.kernel) && self.sweep.lacks(row, |held| energy && meter.lacks_energy(held))
    }

    pub(crate) fn copies(&self, size_bytes: usize) -> usize {
        rotation_copies(self.checker.device, size_bytes).min(MOST_COPIES)
    }

    /// Rows that do not fit the memory that is there.
    pub(crate) fn not_run(&mut self, rows: impl IntoIterator<Item = Row>) -> Result<(), PerfError> {
        for mut row in rows {
            row.flag = Some(QualityFlag::NotRun);
            self.sweep.keep(&row)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::gpu::rows::{configs, float_row, float_share, problem, w4a8_row};
    use crate::measure::space::Space;
    use dualgrain_cuda::GpuInfo;
    use std::collections::HashSet;

    fn h200() -> GpuInfo {
        GpuInfo {
            index: 0,
            name: "NVIDIA H200".to_owned(),
            capability: (9, 0),
            num_sms: 132,
            clock_hz: 1.98e9,
            l2_bytes: 60 << 20,
            shared_bytes: 232_448,
            memory_bytes: 141 << 30,
            memory_bytes_per_s: 4.9e12,
        }
    }

    #[test]
    fn default_space_has_the_rows_that_are_wanted_on_a_hopper_card_each_once() {
        let (space, info) = (Space::default(), h200());
        let (mut keys, mut with_energy, mut doubled) = (HashSet::new(), 0, 0);
        for task in space.tasks() {
            let problem = problem(&task);
            let integers = configs(&task, &problem, &info).into_iter();
            let integers = integers
                .map(|(config, energy_share)| (w4a8_row(&task, &problem, config, &info), energy_share));
            let floats = task.floats.iter();
            let floats = floats.map(|case| (float_row(task.shape, case), float_share(&task, case)));
            for (row, energy_share) in integers.chain(floats) {
                with_energy += usize::from(draws_energy(space.seed, &row, energy_share));
                doubled += usize::from(!keys.insert(row.key()));
            }
        }
        assert!(keys.len() > 17_000, "{} rows", keys.len());
        assert!((2_900..3_600).contains(&with_energy), "{with_energy} with energy");
        assert!(doubled < 5, "{doubled} rows twice");
    }
}
