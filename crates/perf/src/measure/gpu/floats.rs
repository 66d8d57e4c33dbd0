//! Measures the float products of a shape: the libraries and the tiled kernel.

use dualgrain_cuda::{Blend, Buffer, CublasType, SgemmTiled};

use super::meter::TimedLaunch;
use super::rows::{float_row, float_share, kind_of, output_of, set_tiled, transposes};
use super::sweep::GpuSweep;
use crate::data::{QualityFlag, Row};
use crate::error::PerfError;
use crate::measure::gpu::check::{FloatBuffers, FloatReference, verified_by};
use crate::measure::space::{FloatCase, FloatKernel, ShapeTask};
use crate::product::Layout;

impl GpuSweep<'_> {
    /// Float products, type by type.
    pub(crate) fn floats(&mut self, task: &ShapeTask) -> Result<(), PerfError> {
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
        task: &ShapeTask,
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
        let weights = self.copies_of(b, copies)?;
        let buffers = FloatBuffers {
            kind,
            a: &a,
            b: &weights[0],
            c: &c,
            d: &d,
        };
        self.layouts(task, rows, (&buffers, &weights))
    }

    /// A buffer and copies of it, `copies` together.
    fn copies_of(&mut self, buffer: Buffer, copies: usize) -> Result<Vec<Buffer>, PerfError> {
        let mut all = vec![buffer];
        for _ in 1..copies {
            let copy = self.arena.take(all[0].len_bytes())?;
            copy.copy_from(&all[0])?;
            all.push(copy);
        }
        Ok(all)
    }

    /// The rows of one type, layout by layout: products of one layout share what they are checked against.
    fn layouts(
        &mut self,
        task: &ShapeTask,
        rows: Vec<(FloatCase, Row)>,
        (buffers, weights): (&FloatBuffers<'_>, &[Buffer]),
    ) -> Result<(), PerfError> {
        for layout in Layout::ALL {
            let of_layout: Vec<_> = rows.iter().filter(|(case, _)| case.layout == layout).collect();
            if of_layout.is_empty() {
                continue;
            }
            let transposes = transposes(layout);
            let reference = self.checker.floats(buffers, transposes, task.shape, 21)?;
            for (case, row) in of_layout {
                if !self.sweep.begins() {
                    return Ok(());
                }
                self.float(task, (case, row.clone()), &reference, (buffers, weights))?;
            }
        }
        Ok(())
    }

    /// One kernel on operands whose product is known.
    fn float(
        &mut self,
        task: &ShapeTask,
        (case, mut row): (&FloatCase, Row),
        reference: &FloatReference,
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
        if !checker.floats_are_right(reference, buffers, shape, blend, &launch)? {
            row.flag = Some(QualityFlag::Wrong);
            return self.keep(row, None);
        }
        row.verified = verified_by(shape);
        let energy = self.draws_energy(&row, float_share(task, case));
        let timed = TimedLaunch {
            launch: &launch,
            copies: weights.len(),
        };
        let window = self.meter.measure(&mut row, &timed, energy)?;
        self.keep(row, window)
    }
}
