//! Runs several loads, compares the counter with the samples under each, and writes the figures.

use std::path::{Path, PathBuf};

use dualgrain_cuda::{
    Analytic, Arena, Buffer, Cublas, CublasType, Gemm, GemmProblem, Gpu, Jit, NvmlDevice, Output,
    RandomOperands, SgemmTiled, rotation_copies,
};
use dualgrain_device::naive::Transposes;
use dualgrain_format::{GemmShape, GroupSize};

use super::comparison::one;
use super::csv::{write, write_samples};
use super::figures::{CounterComparison, PowerSample};
use crate::error::PerfError;
use crate::measure::gpu::lag::lag;
use crate::measure::gpu::libraries::libraries;
use crate::measure::gpu::meter::{Meter, TimedLaunch};
use crate::measure::gpu::sweep::open_meter;
use crate::measure::options::Watch;

/// The file of samples that [`check_energy_counter`] writes beside the one that is named.
pub fn samples_beside(csv: &Path) -> PathBuf {
    csv.with_extension("samples.csv")
}

/// Checks the counter of card `index` under several loads and writes the figures to a CSV file.
///
/// # Errors
/// No card, no counter, or a call that failed.
pub fn check_energy_counter(
    index: usize,
    ticks: usize,
    csv: &Path,
    version: &str,
    watch: &dyn Watch,
) -> Result<Vec<CounterComparison>, PerfError> {
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
    let found = loads.all(libraries.cublas.as_ref(), watch)?;
    write(csv, &device, version, (tick_s, lag_s), &found)?;
    write_samples(&samples_beside(csv), &meter, &loads.samples)?;
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
    samples: Vec<PowerSample>,
}

impl Loads<'_> {
    /// Every load, the library's if it is there.
    fn all(
        &mut self,
        cublas: Option<&Cublas>,
        watch: &dyn Watch,
    ) -> Result<Vec<CounterComparison>, PerfError> {
        let mut found = Vec::new();
        if let Some(cublas) = cublas {
            found.push(self.cublas(cublas)?);
            watch.progress("cublas_bf16", 1, 4);
        }
        for (place, m) in [16, 1_024].into_iter().enumerate() {
            found.push(self.w4a8((m, 8_192, 8_192))?);
            watch.progress("gemm_w4a8", place + 2, 4);
        }
        found.push(self.tiled()?);
        Ok(found)
    }

    fn cublas(&mut self, cublas: &Cublas) -> Result<CounterComparison, PerfError> {
        let shape = (4_096, 4_096, 4_096);
        let [a, b, d] = self.squares(4_096 * 4_096 * 2)?;
        self.operands.floats(&a, Output::Bf16, 1)?;
        self.operands.floats(&b, Output::Bf16, 2)?;
        let nt = Transposes { a: false, b: true };
        let launch = |_| cublas.launch(CublasType::Bf16, nt, shape, (1.0, 0.0), [&a, &b, &d]);
        let timed = TimedLaunch {
            launch: &launch,
            copies: 1,
        };
        self.one("cublas_bf16 4096x4096x4096", shape, &timed)
    }

    fn w4a8(&mut self, (m, n, k): (usize, usize, usize)) -> Result<CounterComparison, PerfError> {
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
        let timed = TimedLaunch {
            launch: &launch,
            copies,
        };
        self.one(&format!("gemm_w4a8 {m}x{n}x{k}"), (m, n, k), &timed)
    }

    fn tiled(&mut self) -> Result<CounterComparison, PerfError> {
        let shape = (2_048, 2_048, 2_048);
        let [a, b, d] = self.squares(2_048 * 2_048 * 4)?;
        self.operands.floats(&a, Output::F32, 5)?;
        self.operands.floats(&b, Output::F32, 6)?;
        let tiled = SgemmTiled::new(self.jit, 16)?;
        let launch = |_| tiled.launch(Transposes::ALL[0], shape, (1.0, 0.0), [&a, &b, &d]);
        let timed = TimedLaunch {
            launch: &launch,
            copies: 1,
        };
        self.one("sgemm_tiled tile16 2048x2048x2048", shape, &timed)
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
        timed: &TimedLaunch<'_>,
    ) -> Result<CounterComparison, PerfError> {
        one(self.meter, self.card, load, shape, timed, &mut self.samples)
    }
}
