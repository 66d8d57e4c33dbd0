//! The log: its rows, and the features that the paper learns from.

use std::path::Path;

use serde::Deserialize;

use crate::error::PerfError;

pub(crate) const FEATURES: usize = 18;

/// A row of the log: the columns that are used.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LogRow {
    pub(crate) m: f64,
    pub(crate) n: f64,
    pub(crate) k: f64,
    pub(crate) kernel: String,
    blk_m: f64,
    blk_n: f64,
    blk_k: f64,
    pub(crate) alpha: f64,
    pub(crate) beta: f64,
    pub(crate) runtime_ms: f64,
    pub(crate) power_w: Option<f64>,
    pub(crate) energy_joules: Option<f64>,
    pub(crate) tflops_field: f64,
    arith_intensity: f64,
    layout: String,
}

/// Reads the log.
///
/// # Errors
/// A file that is missing, or a line that is no row of it.
pub fn read(path: &Path) -> Result<Vec<LogRow>, PerfError> {
    let file = std::fs::File::open(path).map_err(PerfError::io(path))?;
    let mut csv = csv::Reader::from_reader(file);
    let row = |row: Result<LogRow, csv::Error>| {
        let corrupt = |line, what| PerfError::CorruptRow {
            path: path.to_owned(),
            line,
            what,
        };
        let row = row.map_err(|e| corrupt(e.position().map_or(0, csv::Position::line), e.to_string()))?;
        match row.runtime_ms > 0.0 && row.tflops_field > 0.0 && row.m * row.n * row.k > 0.0 {
            true => Ok(row),
            false => Err(corrupt(
                0,
                format!("a time, rate or size that is not above 0: {row:?}"),
            )),
        }
    };
    csv.deserialize().map(row).collect()
}

/// What the paper learns from, and what of the kernel reached it: transposes, alpha, beta.
pub(crate) fn features(row: &LogRow) -> [f32; FEATURES] {
    let transposed = |operand: &str| if row.kernel.contains(operand) { 1.0 } else { 0.0 };
    let bytes = 4.0 * (row.m * row.k + row.k * row.n + row.m * row.n);
    let order = ["nn", "nt", "tn", "tt"]
        .iter()
        .position(|layout| *layout == row.layout);
    [
        row.m as f32,
        row.n as f32,
        row.k as f32,
        row.blk_m as f32,
        row.blk_n as f32,
        row.blk_k as f32,
        row.arith_intensity as f32,
        bytes as f32,
        (2.0 * row.m * row.n * row.k) as f32,
        transposed("_nn_"),
        transposed("_nt_"),
        transposed("_tn_"),
        transposed("_tt_"),
        row.alpha as f32,
        row.beta as f32,
        order.map_or(-1.0, |order| order as f32),
        (row.m * row.n) as f32,
        (row.m * row.n / (128.0 * 128.0 * 46.0)).ceil() as f32,
    ]
}
