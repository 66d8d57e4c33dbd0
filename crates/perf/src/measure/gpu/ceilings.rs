//! The ceilings of a card: the rates of large square products.

use dualgrain_cuda::{Arena, CublasType, CudaError, Jit, Output, RandomOperands};
use dualgrain_device::naive::Transposes;

use super::libraries::Libraries;
use super::meter::{Meter, TimedLaunch};
use crate::data::Row;
use crate::error::PerfError;

/// Sides of the square products that stand for the ceilings.
pub(crate) const CEILING_SIDE: usize = 8_192;

pub(crate) const F32_CEILING_SIDE: usize = 4_096;

pub(crate) fn float_ceiling(
    jit: &Jit,
    meter: &Meter<'_>,
    libraries: &Libraries,
    arena: &mut Arena,
    (kind, side): (CublasType, usize),
) -> Result<f64, PerfError> {
    let Some(cublas) = &libraries.cublas else {
        return Ok(0.0);
    };
    arena.reset();
    let size_bytes = side * side * kind.size_bytes();
    let [a, b, d] = [
        arena.take(size_bytes)?,
        arena.take(size_bytes)?,
        arena.take(size_bytes)?,
    ];
    let operands = RandomOperands::new(jit, meter.device);
    let output = match kind {
        CublasType::F32 => Output::F32,
        CublasType::F16 => Output::F16,
        CublasType::Bf16 => Output::Bf16,
    };
    for (buffer, seed) in [(&a, 1), (&b, 2)] {
        operands.floats(buffer, output, seed)?;
    }
    let launch = |_| {
        let nt = Transposes { a: false, b: true };
        cublas.launch(kind, nt, (side, side, side), (1.0, 0.0), [&a, &b, &d])
    };
    rate(meter, side, &launch)
}

pub(crate) fn int8_ceiling(
    jit: &Jit,
    meter: &Meter<'_>,
    libraries: &Libraries,
    arena: &mut Arena,
) -> Result<f64, PerfError> {
    let Some(int8) = &libraries.int8 else {
        return Ok(0.0);
    };
    arena.reset();
    let side = CEILING_SIDE;
    let operands = RandomOperands::new(jit, meter.device);
    let (a, b) = (
        operands.tokens((side, side), 1)?,
        operands.tokens((side, side), 2)?,
    );
    let d = arena.take(4 * side * side)?;
    let product = int8.product((side, side, side))?;
    rate(meter, side, &|_| product.launch(a.codes(), b.codes(), &d))
}

fn rate(
    meter: &Meter<'_>,
    side: usize,
    launch: &dyn Fn(usize) -> Result<(), CudaError>,
) -> Result<f64, PerfError> {
    let mut row = Row::blank("", (side, side, side));
    meter.measure(&mut row, &TimedLaunch { launch, copies: 1 }, false)?;
    Ok(row.time_s.map_or(0.0, |time_s| row.ops() / time_s))
}
