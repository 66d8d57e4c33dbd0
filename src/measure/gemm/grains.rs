//! `bench gemm --grains`: what the fine grain costs. Each product with integer group scales (dual grain), with one scale a
//! channel (coarse; the same kernel) and with float group scales (`gemm_w4f_sm90`), in turn in one run.
//!
//! The coarse image keeps a scale in every block as the fine one does, so both read the same bytes; a format of its own
//! would read 3 % fewer.

use anyhow::{Context, Result};
use dualgrain::format::GroupSize;
use dualgrain_cuda::{FLOAT_SCALES_TABLE, Gemm, GemmConfig, GemmProblem, Split, times_s};

use crate::cli::arguments::Shape;
use crate::cli::table::table;
use crate::measure::gemm::bench::{Bench, Cell};
use crate::measure::gemm::float_weights::FloatWeights;
use crate::measure::gemm::operands::{Operands, Tokens, room_for};
use crate::measure::gemm::record::Row;
use crate::measure::gemm::rivals::RivalTimes;

/// Times taken in turn.
const ROUNDS: usize = 2;
/// Group sizes of the first two, and the name of float group scales in rows.
const DUAL: GroupSize = GroupSize::Along(128);
const COARSE: GroupSize = GroupSize::WholeRow;
const FLOAT: &str = "128 float";

/// The weights of a shape, three ways.
struct Grains {
    dual: Operands,
    coarse: Operands,
    float: FloatWeights,
}

/// Three rows for every number of tokens.
pub fn time(bench: &Bench<'_>, shape: &Shape) -> Result<Vec<Row>> {
    let dual = Operands::new(bench.device, (shape.n, shape.k), DUAL)?;
    let grains = Grains {
        float: FloatWeights::new(bench.device, &dual)?,
        coarse: Operands::new(bench.device, (shape.n, shape.k), COARSE)?,
        dual,
    };
    let mut rows = Vec::new();
    for &m in &bench.options.m {
        rows.extend(grains.time(bench, shape, m)?);
    }
    Ok(rows)
}

impl Grains {
    fn time(&self, bench: &Bench<'_>, shape: &Shape, m: usize) -> Result<[Row; 3]> {
        let tokens = self.dual.tokens(bench.device, m)?;
        let gemms = self.gemms(bench, shape, &tokens, m)?;
        let times = self.times(bench, &gemms, &tokens)?;
        let row = |i: usize, size: &str| {
            let cell = Cell {
                shape,
                problem: *gemms[i].problem(),
                rivals: RivalTimes::default(),
            };
            let config = (gemms[i].config(), size != FLOAT);
            Row {
                group_size: size.to_owned(),
                ..bench.row(&cell, config, &times[i], self.dual.image_bytes())
            }
        };
        Ok([
            row(0, &DUAL.to_string()),
            row(1, &COARSE.to_string()),
            row(2, FLOAT),
        ])
    }

    /// The three products, each compared with its specification.
    fn gemms(&self, bench: &Bench<'_>, shape: &Shape, tokens: &Tokens, m: usize) -> Result<[Gemm; 3]> {
        let fine = bench.problem(shape, m, GroupSize::Along(128));
        let chosen = |problem: GemmProblem| bench.gemm(problem, bench.choose(&problem)?);
        let dual = chosen(fine)?;
        let coarse = chosen(bench.problem(shape, m, GroupSize::WholeRow))?;
        self.dual.check(bench.device, &dual, tokens)?;
        self.coarse.check(bench.device, &coarse, tokens)?;
        let float = self.fastest_float(bench, fine, tokens)?;
        Ok([dual, coarse, float])
    }

    /// Seconds of each, sorted.
    fn times(&self, bench: &Bench<'_>, gemms: &[Gemm; 3], tokens: &Tokens) -> Result<[Vec<f64>; 3]> {
        let d = room_for(bench.device, gemms[0].problem())?;
        let weights = [self.dual.copies(), self.coarse.copies(), self.float.copies()];
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for ((times, gemm), weights) in times.iter_mut().zip(gemms).zip(weights) {
                times.extend(bench.times(gemm, weights, tokens, &d)?);
            }
        }
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        Ok(times)
    }

    /// No cost function chooses for the comparison: it gets its fastest size, measured.
    fn fastest_float(&self, bench: &Bench<'_>, problem: GemmProblem, tokens: &Tokens) -> Result<Gemm> {
        let d = room_for(bench.device, &problem)?;
        let weights = self.float.copies();
        let mut fastest: Option<(f64, Gemm)> = None;
        let variants = FLOAT_SCALES_TABLE.iter().filter(|variant| {
            suits(problem.shape.m, variant.tile_m()) && variant.can_run(&problem, bench.device.info())
        });
        for &variant in variants {
            let split = Split::Whole;
            let gemm = bench.gemm(problem, GemmConfig { variant, split })?;
            self.float.check(bench.device, &gemm, tokens)?;
            let times = times_s(bench.device, 1, weights.len(), |i| {
                gemm.launch(&weights[i], &tokens.device, &d)
            })?;
            if fastest.as_ref().is_none_or(|(time_s, _)| times[0] < *time_s) {
                fastest = Some((times[0], gemm));
            }
        }
        let (_, gemm) = fastest.context("gemm_w4f_sm90 needs a Hopper card")?;
        Ok(gemm)
    }
}

/// Whether a tile is worth timing for `m` tokens.
fn suits(m: usize, tile_m: usize) -> bool {
    match m {
        0..=16 => tile_m == 16,
        17..=64 => tile_m == 64,
        65..=256 => tile_m >= 64,
        _ => tile_m > 64,
    }
}

/// Times side by side, and the speed of the dual grain over both others: above 1 it is faster.
pub fn text(rows: &[Row]) -> String {
    let cells: Vec<&[Row]> = rows.chunks_exact(3).collect();
    let mut lines: Vec<Vec<String>> = cells.iter().map(|cell| cell_line(cell)).collect();
    let mut ms: Vec<usize> = cells.iter().map(|cell| cell[0].m).collect();
    ms.sort_unstable();
    ms.dedup();
    for m in ms {
        let of_m = cells.iter().filter(|cell| cell[0].m == m);
        lines.push(mean_line(
            m.to_string(),
            of_m.map(|cell| over_dual(cell)).collect(),
        ));
    }
    let all = cells.iter().map(|cell| over_dual(cell)).collect();
    lines.push(mean_line("all".to_owned(), all));
    let header = [
        "shape",
        "m",
        "dual us",
        "coarse us",
        "float us",
        "coarse/dual",
        "float/dual",
        "dual, float sizes",
    ];
    table(&header, &lines)
}

fn cell_line(cell: &[Row]) -> Vec<String> {
    let micros = |row: &Row| format!("{:.2}", row.time_s * 1e6);
    let mut line = vec![cell[0].shape.clone(), cell[0].m.to_string()];
    line.extend(cell.iter().map(micros));
    line.extend(over_dual(cell).map(three_digits));
    line.push(format!("{}, {}", cell[0].config, cell[2].config));
    line
}

/// Geometric means.
fn mean_line(tokens: String, ratios: Vec<[f64; 2]>) -> Vec<String> {
    let mean = [0, 1].map(|i| {
        let logs = ratios.iter().map(|ratio| ratio[i].ln()).sum::<f64>();
        (logs / ratios.len().max(1) as f64).exp()
    });
    let mut line = vec!["mean".to_owned(), tokens];
    line.resize(5, String::new());
    line.extend(mean.map(three_digits));
    line.push(String::new());
    line
}

/// Coarse and float over dual.
fn over_dual(cell: &[Row]) -> [f64; 2] {
    [1, 2].map(|other: usize| cell[other].time_s / cell[0].time_s)
}

fn three_digits(ratio: f64) -> String {
    format!("{ratio:.3}")
}
