//! `fit --hold-out-peers FILE`: products of a file are kept out of the fit, and predicted afterwards.

use std::path::Path;

use anyhow::{Context, Result};
use dualgrain::format::GroupSize;
use dualgrain_perf::{Dataset, KernelCall, Model, Product, Row};

/// The kernel the file's column stands for.
const KERNEL: &str = "cublas_bf16";
const COLUMN: &str = "bf16_us";

/// Products and their measured seconds elsewhere.
pub struct HeldOutProducts {
    cells: Vec<Cell>,
}

struct Cell {
    sides: (usize, usize, usize),
    time_s: f64,
}

/// Reads a CSV with the columns m, n, k and bf16_us.
pub fn read(path: &Path) -> Result<HeldOutProducts> {
    let rows = crate::cli::columns::read(path, ["m", "n", "k", COLUMN])?;
    let cells = rows.iter().map(cell).collect::<Result<_>>();
    Ok(HeldOutProducts {
        cells: cells.with_context(|| path.display().to_string())?,
    })
}

fn cell([m, n, k, micros]: &[String; 4]) -> Result<Cell> {
    let side = |text: &str| {
        text.parse::<usize>()
            .with_context(|| format!("{m}x{n}x{k}: sizes"))
    };
    let time = micros
        .parse()
        .ok()
        .filter(|time: &f64| *time > 0.0 && time.is_finite());
    let micros = time.with_context(|| format!("{m}x{n}x{k}: {COLUMN} {micros:?} must be above 0"))?;
    Ok(Cell {
        sides: (side(m)?, side(n)?, side(k)?),
        time_s: micros * 1e-6,
    })
}

impl HeldOutProducts {
    /// Takes all rows of its shapes out of a set.
    pub fn take_from(&self, data: &mut Dataset) -> Vec<Row> {
        let held = |row: &Row| self.cells.iter().any(|cell| cell.sides == (row.m, row.n, row.k));
        let (taken, kept) = std::mem::take(&mut data.rows).into_iter().partition(held);
        data.rows = kept;
        taken
    }

    /// Errors of the predictions, against the file and against the rows that were taken out.
    pub fn text(&self, model: &Model, taken: &[Row]) -> Result<String> {
        let mut elsewhere = Vec::new();
        for cell in &self.cells {
            elsewhere.push(percent(predicted(model, cell.sides)?, cell.time_s));
        }
        let own = taken.iter().filter(|row| row.kernel == KERNEL && row.is_sound());
        let mut here = Vec::new();
        for row in own {
            let prediction = model.predict(&KernelCall::of_row(row))?.time_s.value;
            here.extend(row.time_s.map(|time_s| percent(prediction, time_s)));
        }
        Ok(format!(
            "\n{KERNEL} on products kept out of the fit ({} rows of all kernels):\n  the file's {}\n  this set's {}\n",
            taken.len(),
            summary(elsewhere),
            summary(here)
        ))
    }
}

fn predicted(model: &Model, (m, n, k): (usize, usize, usize)) -> Result<f64> {
    let product = Product {
        group_size: GroupSize::WholeRow,
        ..Product::new(m, n, k)
    };
    let query = KernelCall {
        kernel: KERNEL,
        config: "",
        product,
    };
    Ok(model.predict(&query)?.time_s.value)
}

fn percent(predicted: f64, measured: f64) -> f64 {
    100.0 * (predicted / measured - 1.0).abs()
}

fn summary(mut errors: Vec<f64>) -> String {
    if errors.is_empty() {
        return "measurements: none".to_owned();
    }
    errors.sort_by(f64::total_cmp);
    format!(
        "{} measurements: mean error {:.1} %, median {:.1} %, worst {:.1} %",
        errors.len(),
        errors.iter().sum::<f64>() / errors.len() as f64,
        errors[errors.len() / 2],
        errors[errors.len() - 1]
    )
}
