//! Times a CPU product, and reads its energy where the machine shows a counter.

use std::hint::black_box;
use std::time::Instant;

use dualgrain_cpu::{CpuDevice, Linear, Matrix, Quantized};
use dualgrain_device::{Device, DeviceError, Operand};

use super::operands::DrawnOperands;
use super::rapl::Rapl;
use crate::data::{QualityFlag, Row};
use crate::measure::times::set_times;

/// A repetition takes at least so long, and there are so many.
const REPEAT_S: f64 = 2.5e-3;
const REPEATS: usize = 5;
/// Measured again at most so often when repetitions lie far apart: other programs come and go.
const TRIES: usize = 3;
/// Energy is read over a window of this length.
const ENERGY_S: f64 = 0.3;

impl DrawnOperands {
    /// Fills in time, and energy where the machine shows it.
    pub fn measure(
        &self,
        row: &mut Row,
        device: &CpuDevice,
        linears: &[Linear],
        (a, x): (&Quantized, &Matrix),
        rapl: Option<&Rapl>,
    ) -> Result<(), DeviceError> {
        let (m, n, _) = self.shape;
        let mut out = device.matrix(m, n)?;
        let mut turn = 0;
        let mut run = |count: usize| {
            let start = Instant::now();
            for _ in 0..count {
                turn = (turn + 1) % linears.len();
                // A model's step says so too, and threads that wait read ahead.
                device.will_read(&linears[(turn + 1) % linears.len()]);
                let operand = match self.op.is_integer() {
                    true => Operand::Int8(a),
                    false => Operand::Float(x),
                };
                device.gemm(&mut out, operand, &linears[turn])?;
                black_box(&out);
            }
            Ok::<f64, DeviceError>(start.elapsed().as_secs_f64() / count as f64)
        };
        let count = time(row, &mut run)?;
        rapl.map_or(Ok(()), |rapl| read_energy(row, rapl, count, &mut run))
    }
}

/// Fills in the time. `run` runs the product so many times and says the mean seconds of one. Says how many runs make a
/// repetition.
fn time(
    row: &mut Row,
    run: &mut impl FnMut(usize) -> Result<f64, DeviceError>,
) -> Result<usize, DeviceError> {
    let one_s = run(1)?.min(run(1)?).max(1e-7);
    let count = ((REPEAT_S / one_s) as usize).clamp(1, 10_000);
    run(count)?;
    for _ in 0..TRIES {
        row.flag = None;
        let times = (0..REPEATS).map(|_| run(count));
        set_times(row, times.collect::<Result<_, _>>()?);
        if row.flag != Some(QualityFlag::Unsteady) {
            break;
        }
    }
    Ok(count)
}

/// Fills in power and energy from the counter before and after a window of steady runs.
fn read_energy(
    row: &mut Row,
    rapl: &Rapl,
    count: usize,
    run: &mut impl FnMut(usize) -> Result<f64, DeviceError>,
) -> Result<(), DeviceError> {
    let Some(earlier) = rapl.read() else {
        return Ok(());
    };
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < ENERGY_S {
        run(count)?;
        runs += count;
    }
    let window_s = start.elapsed().as_secs_f64();
    if let Some(energy_j) = rapl.since_j(&earlier) {
        row.power_w = Some(energy_j / window_s);
        row.energy_j = Some(energy_j / runs as f64);
        row.energy_window_s = Some(window_s);
        row.energy_runs = runs;
    }
    Ok(())
}
