//! Measures the integer products of a shape: the W4A8 kernels and the int8 library.

use dualgrain_cuda::{Gemm, GemmConfig, GemmProblem, PackedLinear};

use super::meter::TimedLaunch;
use super::rows::{configs, int8_row, problem, set_occupancy, w4a8_row};
use super::sweep::GpuSweep;
use crate::data::{QualityFlag, Row};
use crate::error::PerfError;
use crate::measure::gpu::check::{IntegerReference, verified_by};
use crate::measure::space::{ShapeTask, hash};
use crate::operands::int8_library_takes;

impl GpuSweep<'_> {
    /// The W4A8 kernels and the int8 library.
    pub(crate) fn integers(&mut self, task: &ShapeTask) -> Result<(), PerfError> {
        let problem = problem(task);
        let (m, n, k) = task.shape;
        let mut rows: Vec<(GemmConfig, Row, f64)> = Vec::new();
        for (config, energy_share) in configs(task, &problem, self.checker.device.info()) {
            let row = w4a8_row(task, &problem, config, self.checker.device.info());
            if self.is_missing(&row, energy_share) {
                rows.push((config, row, energy_share));
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
        let reference = self
            .checker
            .integers(&mut self.arena, &layers[0], &problem, seed)?;
        let Some(reference) = reference else {
            for mut row in rows.into_iter().map(|(_, row, _)| row) {
                row.flag = Some(QualityFlag::Wrong);
                self.sweep.keep(&row)?;
            }
            return Ok(());
        };
        for (config, row, energy_share) in rows {
            if !self.sweep.begins() {
                return Ok(());
            }
            self.w4a8(row, config, &problem, (&layers, &reference), energy_share)?;
        }
        match int8.filter(|_| self.sweep.begins()) {
            Some(row) => self.int8(row, &reference, int8_share),
            None => Ok(()),
        }
    }

    fn w4a8(
        &mut self,
        mut row: Row,
        config: GemmConfig,
        problem: &GemmProblem,
        (layers, reference): (&[PackedLinear], &IntegerReference),
        energy_share: f64,
    ) -> Result<(), PerfError> {
        let checker = &self.checker;
        let gemm = Gemm::new(checker.jit, checker.device, *problem, config)?;
        let kernel = gemm.kernel();
        let launch = gemm.geometry().launch;
        row.registers = kernel.num_registers() as usize;
        row.ctas_per_sm = kernel.blocks_per_sm(row.threads, launch.shared_bytes)?;
        set_occupancy(&mut row, checker.device);
        if !checker.w4a8_is_right(reference, &layers[0], &gemm)? {
            row.flag = Some(QualityFlag::Wrong);
            return self.sweep.keep(&row);
        }
        row.verified = verified_by((row.m, row.n, row.k));
        let energy = self.draws_energy(&row, energy_share);
        let timed = TimedLaunch {
            launch: &|i| gemm.launch(&layers[i], &reference.tokens, &reference.d),
            copies: layers.len(),
        };
        let window = self.meter.measure(&mut row, &timed, energy)?;
        self.keep(row, window)
    }

    fn int8(
        &mut self,
        mut row: Row,
        reference: &IntegerReference,
        energy_share: f64,
    ) -> Result<(), PerfError> {
        let Some(library) = &self.libraries.int8 else {
            return Ok(());
        };
        let shape = (row.m, row.n, row.k);
        // Products it has no algorithm for are no rows.
        let Ok(product) = library.product(shape) else {
            return Ok(());
        };
        let size_bytes = reference.w8.len_bytes();
        let mut copies = Vec::new();
        for _ in 1..self.copies(size_bytes) {
            let copy = self.arena.take(size_bytes)?;
            copy.copy_from(&reference.w8)?;
            copies.push(copy);
        }
        let weights = |i: usize| i.checked_sub(1).map_or(&reference.w8, |i| &copies[i]);
        let launch = |i: usize| product.launch(reference.tokens.codes(), weights(i), &reference.d);
        reference.d.fill(0xff)?;
        // Some shapes are refused only now.
        if launch(0).is_err() {
            return Ok(());
        }
        if !self
            .checker
            .right_sums(reference, &reference.d, (shape.0, shape.1))?
        {
            row.flag = Some(QualityFlag::Wrong);
            return self.sweep.keep(&row);
        }
        row.verified = verified_by(shape);
        let energy = self.draws_energy(&row, energy_share);
        let timed = TimedLaunch {
            launch: &launch,
            copies: copies.len() + 1,
        };
        let window = self.meter.measure(&mut row, &timed, energy)?;
        drop(product);
        self.keep(row, window)
    }
}
