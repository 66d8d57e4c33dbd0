//! A sweep on a card: shape after shape, operands made once for all that is measured on it.

use std::time::Duration;

use dualgrain_cuda::{
    Arena, Blend, Buffer, CublasType, Freivalds, Gemm, GemmConfig, GemmProblem, Gpu, Jit, Nvml, PackedLinear,
    RandomOperands, SgemmTiled, rotation_copies,
};

use super::check::{Checker, FloatBuffers, FloatTruth, IntegerTruth, verified_by};
use super::manifest::{Libraries, libraries, manifest};
use super::meter::{Meter, Region, Subject};
use super::rows::{
    configs, draws_energy, float_row, float_share, int8_row, kernels, kind_of, output_of, problem,
    set_occupancy, set_tiled, transposes, w4a8_row,
};
use crate::data::{Layout, Mark, Row};
use crate::error::PerfError;
use crate::measure::space::{FloatCase, FloatKernel, Task, hash};
use crate::measure::sweep::{ProfileOptions, ProfileSummary, Sweep, Watch};
use crate::product::int8_library_takes;

/// Memory for operands: enough for every product of the default space.
const ARENA_BYTES: usize = 20 << 30;
/// Copies that rotate, at most.
const MOST_COPIES: usize = 1_000;

/// Measures products on card `index`.
///
/// # Errors
/// No card or compiler, a folder of another machine, a call that failed. Rows measured until then are on disk.
pub fn profile_gpu(
    index: usize,
    options: &ProfileOptions,
    watch: &dyn Watch,
) -> Result<ProfileSummary, PerfError> {
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
    let sweep = Sweep::open(options, watch, &manifest)?;
    let bench = Bench {
        checker,
        meter,
        libraries,
        arena,
        sweep,
        pending: Vec::new(),
    };
    bench.run()
}

/// A card's meter; why there is no energy is told.
pub(crate) fn open_meter<'a>(device: &'a Device, ticks: usize, watch: &dyn Watch) -> Meter<'a> {
    let card = Nvml::open().and_then(|nvml| nvml.card(device.info()));
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

struct Bench<'a> {
    checker: Checker<'a>,
    meter: Meter<'a>,
    libraries: Libraries,
    arena: Arena,
    sweep: Sweep<'a>,
    /// Rows whose energy the counter has not reached yet.
    pending: Vec<(Row, Region)>,
}

impl Bench<'_> {
    fn run(mut self) -> Result<ProfileSummary, PerfError> {
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
        let mine: Vec<&Task> = tasks.iter().skip(shard).step_by(shards.max(1)).collect();
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
    fn keep(&mut self, row: Row, region: Option<Region>) -> Result<(), PerfError> {
        match region {
            Some(region) => self.pending.push((row, region)),
            None => self.sweep.keep(&row)?,
        }
        self.settle()
    }

    /// Keeps the rows whose energy the counter shows by now.
    fn settle(&mut self) -> Result<(), PerfError> {
        let mut left = Vec::new();
        for (mut row, region) in std::mem::take(&mut self.pending) {
            if self.meter.settle(&mut row, &region) {
                self.sweep.keep(&row)?;
            } else {
                left.push((row, region));
            }
        }
        self.pending = left;
        Ok(())
    }

    fn draws_energy(&self, row: &Row, share: f64) -> bool {
        draws_energy(self.sweep.options.space.seed, row, share)
    }

    /// Whether the row is wanted and still to be measured: its energy too, if its share draws it.
    fn is_missing(&mut self, row: &Row, share: f64) -> bool {
        let energy = self.draws_energy(row, share);
        let meter = &self.meter;
        self.sweep.wants(&row.kernel) && self.sweep.lacks(row, |held| energy && meter.lacks_energy(held))
    }

    fn copies(&self, size_bytes: usize) -> usize {
        rotation_copies(self.checker.device, size_bytes).min(MOST_COPIES)
    }

    /// Rows that do not fit the memory that is there.
    fn not_run(&mut self, rows: impl IntoIterator<Item = Row>) -> Result<(), PerfError> {
        for mut row in rows {
            row.mark = Some(Mark::NotRun);
            self.sweep.keep(&row)?;
        }
        Ok(())
    }

    /// The W4A8 kernels and the int8 library.
    fn integers(&mut self, task: &Task) -> Result<(), PerfError> {
        let problem = problem(task);
        let (m, n, k) = task.shape;
        let mut rows: Vec<(GemmConfig, Row, f64)> = Vec::new();
        for (config, share) in configs(task, &problem, self.checker.device.info()) {
            let row = w4a8_row(task, &problem, config, self.checker.device.info());
            if self.is_missing(&row, share) {
                rows.push((config, row, share));
            }
        }
        let int8 = int8_row(task);
        let has_int8 = task.int8 && int8_library_takes((n, k)) && self.libraries.int8.is_some();
        let int8_share = 2.0 * task.energy_share;
        let int8 = (has_int8 && self.is_missing(&int8, int8_share)).then_some(int8);
        if (rows.is_empty() && int8.is_none()) || !self.sweep.begins() {
            return Ok(());
        }
        let copies = self.copies(dualgrain_cuda::image_bytes((n, k), problem.group)?);
        let image = n.next_multiple_of(64) * k.next_multiple_of(128);
        let needed = copies * image + n * k * (1 + self.copies(n * k)) + 12 * m * n + 8 * (n + 1_024);
        self.arena.reset();
        if needed > self.arena.left_bytes() {
            return self.not_run(rows.into_iter().map(|(_, row, _)| row).chain(int8));
        }
        let seed = hash(1, &format!("{:?}", task.shape)) >> 32;
        let layers = self
            .checker
            .operands
            .w4(&mut self.arena, (n, k), problem.group, copies, seed)?;
        let truth = self
            .checker
            .integers(&mut self.arena, &layers[0], &problem, seed)?;
        let Some(truth) = truth else {
            for mut row in rows.into_iter().map(|(_, row, _)| row) {
                row.mark = Some(Mark::Wrong);
                self.sweep.keep(&row)?;
            }
            return Ok(());
        };
        for (config, row, share) in rows {
            if !self.sweep.begins() {
                return Ok(());
            }
            self.w4a8(row, config, &problem, (&layers, &truth), share)?;
        }
        match int8.filter(|_| self.sweep.begins()) {
            Some(row) => self.int8(row, &truth, int8_share),
            None => Ok(()),
        }
    }

    fn w4a8(
        &mut self,
        mut row: Row,
        config: GemmConfig,
        problem: &GemmProblem,
        (layers, truth): (&[PackedLinear], &IntegerTruth),
        share: f64,
    ) -> Result<(), PerfError> {
        let checker = &self.checker;
        let gemm = Gemm::new(checker.jit, checker.device, *problem, config)?;
        let kernel = gemm.kernel();
        let launch = gemm.geometry().launch;
        row.registers = kernel.num_registers() as usize;
        row.ctas_per_sm = kernel.blocks_per_sm(row.threads, launch.shared_bytes)?;
        set_occupancy(&mut row, checker.device);
        if !checker.w4a8_is_right(truth, &layers[0], &gemm)? {
            row.mark = Some(Mark::Wrong);
            return self.sweep.keep(&row);
        }
        row.verified = verified_by((row.m, row.n, row.k));
        let energy = self.draws_energy(&row, share);
        let subject = Subject {
            launch: &|i| gemm.launch(&layers[i], &truth.tokens, &truth.d),
            copies: layers.len(),
        };
        let region = self.meter.measure(&mut row, &subject, energy)?;
        self.keep(row, region)
    }

    fn int8(&mut self, mut row: Row, truth: &IntegerTruth, share: f64) -> Result<(), PerfError> {
        let Some(library) = &self.libraries.int8 else {
            return Ok(());
        };
        let shape = (row.m, row.n, row.k);
        // Products it has no algorithm for are no rows.
        let Ok(product) = library.product(shape) else {
            return Ok(());
        };
        let size_bytes = truth.w8.len_bytes();
        let mut copies = Vec::new();
        for _ in 1..self.copies(size_bytes) {
            let copy = self.arena.take(size_bytes)?;
            copy.copy_from(&truth.w8)?;
            copies.push(copy);
        }
        let weights = |i: usize| i.checked_sub(1).map_or(&truth.w8, |i| &copies[i]);
        let launch = |i: usize| product.launch(truth.tokens.codes(), weights(i), &truth.d);
        truth.d.fill(0xff)?;
        // Some shapes are refused only now.
        if launch(0).is_err() {
            return Ok(());
        }
        if !self.checker.right_sums(truth, &truth.d, (shape.0, shape.1))? {
            row.mark = Some(Mark::Wrong);
            return self.sweep.keep(&row);
        }
        row.verified = verified_by(shape);
        let energy = self.draws_energy(&row, share);
        let subject = Subject {
            launch: &launch,
            copies: copies.len() + 1,
        };
        let region = self.meter.measure(&mut row, &subject, energy)?;
        drop(product);
        self.keep(row, region)
    }

    /// Float products, type by type.
    fn floats(&mut self, task: &Task) -> Result<(), PerfError> {
        for kind in [CublasType::Bf16, CublasType::F16, CublasType::F32] {
            let mut rows: Vec<(FloatCase, Row)> = Vec::new();
            for case in task.floats.iter().filter(|case| kind_of(case.kernel) == kind) {
                let row = float_row(task.shape, case);
                let is_here = self.libraries.cublas.is_some() || matches!(case.kernel, FloatKernel::Tiled(_));
                if is_here && self.is_missing(&row, float_share(task, case)) {
                    rows.push((*case, row));
                }
            }
            if !rows.is_empty() && self.sweep.begins() {
                self.floats_of(task, kind, rows)?;
            }
        }
        Ok(())
    }

    fn floats_of(
        &mut self,
        task: &Task,
        kind: CublasType,
        rows: Vec<(FloatCase, Row)>,
    ) -> Result<(), PerfError> {
        let (m, n, k) = task.shape;
        let size = kind.size_bytes();
        let copies = self.copies(n * k * size);
        self.arena.reset();
        let needed = size * (m * k + 2 * m * n + copies * n * k) + (copies + 4) * 512;
        if needed > self.arena.left_bytes() {
            return self.not_run(rows.into_iter().map(|(_, row)| row));
        }
        let [a, c, d, b] = [m * k, m * n, m * n, n * k].map(|elements| self.arena.take(size * elements));
        let (a, c, d, b) = (a?, c?, d?, b?);
        let output = output_of(kind);
        for (seed, buffer) in [(11, &a), (12, &b), (13, &c)] {
            self.checker.operands.floats(buffer, output, seed)?;
        }
        let mut weights = vec![b];
        for _ in 1..copies {
            let copy = self.arena.take(size * n * k)?;
            copy.copy_from(&weights[0])?;
            weights.push(copy);
        }
        let buffers = FloatBuffers {
            kind,
            a: &a,
            b: &weights[0],
            c: &c,
            d: &d,
        };
        for layout in Layout::ALL {
            let of_layout: Vec<_> = rows.iter().filter(|(case, _)| case.layout == layout).collect();
            if of_layout.is_empty() {
                continue;
            }
            let transposes = transposes(layout);
            let truth = self.checker.floats(&buffers, transposes, task.shape, 21)?;
            for (case, row) in of_layout {
                if !self.sweep.begins() {
                    return Ok(());
                }
                self.float(task, (case, row.clone()), &truth, (&buffers, &weights))?;
            }
        }
        Ok(())
    }

    /// One kernel on operands whose product is known.
    fn float(
        &mut self,
        task: &Task,
        (case, mut row): (&FloatCase, Row),
        truth: &FloatTruth,
        (buffers, weights): (&FloatBuffers<'_>, &[Buffer]),
    ) -> Result<(), PerfError> {
        let (shape, transposes) = (task.shape, transposes(case.layout));
        let tiled = match case.kernel {
            FloatKernel::Tiled(tile) => Some(SgemmTiled::new(self.checker.jit, tile)?),
            _ => None,
        };
        let launch = |i: usize| {
            let operands = [buffers.a, &weights[i], buffers.d];
            match (&tiled, &self.libraries.cublas) {
                (Some(tiled), _) => tiled.launch(transposes, shape, case.blend, operands),
                (None, Some(cublas)) => cublas.launch(buffers.kind, transposes, shape, case.blend, operands),
                (None, None) => Ok(()),
            }
        };
        if let Some(tiled) = &tiled {
            set_tiled(&mut row, tiled, self.checker.device)?;
        }
        let blend = Blend {
            alpha: case.blend.0,
            beta: case.blend.1,
        };
        let checker = &self.checker;
        if !checker.floats_are_right(truth, buffers, shape, blend, &launch)? {
            row.mark = Some(Mark::Wrong);
            return self.keep(row, None);
        }
        row.verified = verified_by(shape);
        let energy = self.draws_energy(&row, float_share(task, case));
        let subject = Subject {
            launch: &launch,
            copies: weights.len(),
        };
        let region = self.meter.measure(&mut row, &subject, energy)?;
        self.keep(row, region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::space::Space;
    use dualgrain_cuda::DeviceInfo;
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
            let integers = integers.map(|(config, share)| (w4a8_row(&task, &problem, config, &info), share));
            let floats = task.floats.iter();
            let floats = floats.map(|case| (float_row(task.shape, case), float_share(&task, case)));
            for (row, share) in integers.chain(floats) {
                with_energy += usize::from(draws_energy(space.seed, &row, share));
                doubled += usize::from(!keys.insert(row.key()));
            }
        }
        assert!(keys.len() > 17_000, "{} rows", keys.len());
        assert!((2_900..3_600).contains(&with_energy), "{with_energy} with energy");
        assert!(doubled < 5, "{doubled} rows twice");
    }
}
