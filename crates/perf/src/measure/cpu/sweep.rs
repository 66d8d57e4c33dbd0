//! Runs a sweep on the CPU, shape by shape and type by type: first the kernels that programs run on this CPU, then those of
//! lesser instruction sets.

use std::time::Instant;

use dualgrain_cpu::{CpuDevice, Isa, available};
use dualgrain_format::GroupSize;

use super::manifest::{manifest, meminfo_bytes};
use super::op::ProductType;
use super::operands::DrawnOperands;
use super::rapl::Rapl;
use crate::data::{QualityFlag, Row};
use crate::error::PerfError;
use crate::measure::options::{SweepOptions, SweepSummary, Watch};
use crate::measure::space::ShapeTask;
use crate::measure::sweep::Sweep;

/// Beyond these operations the portable kernels, and those of floats, take too long.
const MOST_NAIVE_OPS: f64 = 5e7;
const MOST_FLOAT_OPS: f64 = 6e9;
/// Weights a product on a CPU may have here: making more takes longer than anything they could tell.
const MOST_WEIGHTS: usize = 1 << 30;
/// Share of the free memory that operands and outputs may take.
const SHARE_OF_FREE: f64 = 0.8;
/// Memory that a sweep takes of a machine that does not say what is free.
const USUAL_BYTES: usize = 4 << 30;

/// Measures products on the CPU with 1, 2, ... up to `max_threads` threads.
///
/// # Errors
/// A folder of another machine, a file that cannot be written. Rows measured until then are on disk.
pub fn sweep_cpu(
    name: &str,
    max_threads: usize,
    options: &SweepOptions,
    watch: &dyn Watch,
) -> Result<SweepSummary, PerfError> {
    let started = Instant::now();
    options.check(&kernels().iter().map(String::as_str).collect::<Vec<_>>())?;
    let rapl = Rapl::open()
        .inspect_err(|why| watch.say(&format!("rows get no energy: {why}")))
        .ok();
    let free_bytes = meminfo_bytes("MemAvailable:").unwrap_or(USUAL_BYTES);
    let manifest = manifest(name, (max_threads, free_bytes), options)?;
    let cpu_sweep = CpuSweep {
        free_bytes,
        devices: devices(max_threads)?,
        rapl,
        sweep: Sweep::open(options, watch, &manifest, started)?,
    };
    cpu_sweep.run()
}

/// Kernels of this processor.
fn kernels() -> Vec<String> {
    let isas = || available().into_iter();
    ProductType::ALL
        .iter()
        .flat_map(|op| isas().map(|isa| kernel(*op, isa)))
        .collect()
}

fn kernel(op: ProductType, isa: Isa) -> String {
    format!("{}_{}", op.name(), isa.name())
}

fn devices(max_threads: usize) -> Result<Vec<CpuDevice>, PerfError> {
    let mut all = Vec::new();
    for isa in available() {
        for threads in 1..=max_threads.max(1) {
            all.push(CpuDevice::with_isa(threads, isa)?);
        }
    }
    Ok(all)
}

/// A part of a sweep that goes over all shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Of each type, the kernels that a program runs on this CPU.
    Best,
    /// Those of lesser instruction sets.
    Lesser,
}

impl Pass {
    const ALL: [Self; 2] = [Self::Best, Self::Lesser];

    /// Whether it measures a type with one of the `available` instruction sets, of which the best comes last.
    fn takes(self, op: ProductType, isa: Isa, available: &[Isa]) -> bool {
        let mut kernels = available.iter().filter(|isa| is_sensible(op, **isa, 0.0));
        (kernels.next_back() == Some(&isa)) == (self == Self::Best)
    }
}

struct CpuSweep<'a> {
    /// Memory that operands may take.
    free_bytes: usize,
    devices: Vec<CpuDevice>,
    rapl: Option<Rapl>,
    sweep: Sweep<'a>,
}

impl CpuSweep<'_> {
    fn run(mut self) -> Result<SweepSummary, PerfError> {
        let (shard, shards) = self.sweep.options.shard;
        let tasks = self.sweep.options.space.tasks();
        let mine: Vec<&ShapeTask> = tasks.iter().skip(shard).step_by(shards.max(1)).collect();
        self.passes(&mine)?;
        // What was unsteady in an earlier run is tried again when all that is new is measured.
        if !self.sweep.is_cut && !self.sweep.retries.is_empty() {
            let skipped = self.sweep.summary.skipped_rows;
            self.sweep.is_retrying = true;
            self.passes(&mine)?;
            self.sweep.summary.skipped_rows = skipped;
        }
        Ok(self.sweep.ended())
    }

    /// The best kernels on all shapes, so that a short sweep teaches what is run; then the others.
    fn passes(&mut self, tasks: &[&ShapeTask]) -> Result<(), PerfError> {
        for pass in Pass::ALL {
            self.pass(tasks, pass)?;
        }
        Ok(())
    }

    fn pass(&mut self, tasks: &[&ShapeTask], pass: Pass) -> Result<(), PerfError> {
        let before = if pass == Pass::Best { 0 } else { tasks.len() };
        for (place, task) in tasks.iter().enumerate() {
            if self.sweep.is_cut {
                return Ok(());
            }
            let (m, n, k) = task.shape;
            let total = tasks.len() * Pass::ALL.len();
            self.sweep
                .watch
                .progress(&format!("{m} x {n} x {k}"), before + place, total);
            for op in ProductType::ALL {
                self.products(task, (op, pass))?;
                if self.sweep.is_cut {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The device of the same instruction set that has the most threads: it packs fastest.
    fn packing_device<'b>(&'b self, device: &'b CpuDevice) -> &'b CpuDevice {
        let mut of_isa = self.devices.iter().filter(|other| other.isa() == device.isa());
        of_isa.next_back().unwrap_or(device)
    }

    /// All threads on one type of a shape, with the instruction sets of a pass.
    fn products(&mut self, task: &ShapeTask, (op, pass): (ProductType, Pass)) -> Result<(), PerfError> {
        let mut rows = Vec::new();
        let has_counter = self.rapl.is_some();
        for device in &self.devices {
            let row = cpu_row(task, op, device);
            let is_wanted = is_sensible(op, device.isa(), row.ops())
                && pass.takes(op, device.isa(), &available())
                && self.sweep.wants(&row.kernel);
            // A run that can read energy measures rows again that an earlier one had to leave without.
            if is_wanted
                && self
                    .sweep
                    .lacks(&row, |held| has_counter && is_without_energy(held))
            {
                rows.push((device.clone(), row));
            }
        }
        if rows.is_empty() || !self.sweep.begins() {
            return Ok(());
        }
        let (_, n, k) = task.shape;
        if n * k > MOST_WEIGHTS || op.bytes(task.shape) > SHARE_OF_FREE * self.free_bytes as f64 {
            for (_, mut row) in rows {
                row.flag = Some(QualityFlag::NotRun);
                self.sweep.keep(&row)?;
            }
            return Ok(());
        }
        let operands = DrawnOperands::new(op, task.shape, task.group_size)?;
        let mut packed: Option<(Isa, Vec<_>)> = None;
        for (device, mut row) in rows {
            if !self.sweep.begins() {
                break;
            }
            // Integer weights are packed alike for all instruction sets.
            let fits = |(isa, _): &(Isa, Vec<_>)| op.is_integer() || *isa == device.isa();
            let (isa, linears) = match packed.take().filter(fits) {
                Some(packed) => packed,
                None => (device.isa(), operands.pack_copies(self.packing_device(&device))?),
            };
            let (a, x) = operands.upload(&device)?;
            if operands.is_right(&device, &linears[0], (&a, &x))? {
                row.verified = operands.verified_by();
                operands.measure(&mut row, &device, &linears, (&a, &x), self.rapl.as_ref())?;
            } else {
                row.flag = Some(QualityFlag::Wrong);
            }
            packed = Some((isa, linears));
            self.sweep.keep(&row)?;
        }
        Ok(())
    }
}

/// Whether a product was timed and its energy not read.
fn is_without_energy(row: &Row) -> bool {
    row.time_s.is_some() && row.energy_j.is_none()
}

/// Float kernels are the same code with and without integer instructions, and the portable ones are slow.
fn is_sensible(op: ProductType, isa: Isa, ops: f64) -> bool {
    match isa {
        Isa::Portable => ops <= MOST_NAIVE_OPS,
        Isa::AvxVnni | Isa::Amx => op.is_integer(),
        Isa::Avx2 | Isa::Avx512Vnni => op.is_integer() || ops <= MOST_FLOAT_OPS,
    }
}

fn cpu_row(task: &ShapeTask, op: ProductType, device: &CpuDevice) -> Row {
    let mut row = Row::blank(&kernel(op, device.isa()), task.shape);
    row.group_size = if op == ProductType::W4a8 {
        task.group_size
    } else {
        GroupSize::WholeRow
    };
    row.output = "f32".to_owned();
    row.threads = device.num_threads();
    row.ctas = row.threads;
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_run_here_is_measured_first_and_every_kernel_once() {
        let all = [Isa::Portable, Isa::Avx2, Isa::AvxVnni, Isa::Avx512Vnni, Isa::Amx];
        let of = |pass: Pass, op, available: &[Isa]| -> Vec<Isa> {
            let taken = |isa: &Isa| pass.takes(op, *isa, available);
            available.iter().copied().filter(taken).collect()
        };
        assert_eq!(of(Pass::Best, ProductType::W4a8, &all), [Isa::Amx]);
        // Those of floats have no instructions for matrices of integers.
        assert_eq!(of(Pass::Best, ProductType::Bf16, &all), [Isa::Avx512Vnni]);
        assert_eq!(of(Pass::Best, ProductType::F32, &all[..3]), [Isa::Avx2]);
        assert_eq!(of(Pass::Best, ProductType::W8a8, &all[..1]), [Isa::Portable]);
        for op in ProductType::ALL {
            let passes = Pass::ALL.map(|pass| of(pass, op, &all));
            let mut both: Vec<Isa> = passes.concat();
            both.sort_by_key(|isa| all.iter().position(|other| other == isa));
            assert_eq!(both, all, "{op:?}");
        }
    }
}
