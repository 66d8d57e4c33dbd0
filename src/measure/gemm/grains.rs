//! `bench gemm --grains`: what the fine grain costs. Each product with integer group scales (dual grain), with one scale a
//! channel (coarse; the same kernel) and with float group scales (`gemm_w4f_sm90`), in turn in one run.
//!
//! The coarse image keeps a scale in every block as the fine one does, so both read the same bytes; a format of its own
//! would read 3 % fewer.

use anyhow::{Context, Result};
use dualgrain_cuda::{FLOAT_SCALES_TABLE, Gemm, GemmConfig, GemmProblem, Split, select, times_s};
use dualgrain_format::{GemmShape, GroupSize};

use crate::cli::arguments::Shape;
use crate::cli::table::table;
use crate::measure::gemm::Bench;
use crate::measure::gemm::operands::{FloatWeights, Operands, Tokens};
use crate::measure::gemm::record::Row;

/// Times taken in turn.
const ROUNDS: usize = 2;
/// Names of the group sizes in rows.
const DUAL: &str = "128";
const COARSE: &str = "channel";
const FLOAT: &str = "128 float";

/// The weights of a shape, three ways.
struct Grains {
    dual: Operands,
    coarse: Operands,
    float: FloatWeights,
}

impl Bench<'_> {
    /// Three rows for every number of tokens.
    pub fn time_grains(&self, shape: &Shape) -> Result<Vec<Row>> {
        let dual = Operands::new(self.device, (shape.n, shape.k), DUAL)?;
        let grains = Grains {
            float: FloatWeights::new(self.device, &dual)?,
            coarse: Operands::new(self.device, (shape.n, shape.k), COARSE)?,
            dual,
        };
        let mut rows = Vec::new();
        for &m in &self.options.m {
            rows.extend(self.time_grains_of(shape, m, &grains)?);
        }
        Ok(rows)
    }

    fn time_grains_of(&self, shape: &Shape, m: usize, grains: &Grains) -> Result<[Row; 3]> {
        let tokens = grains.dual.tokens(self.device, m)?;
        let problem = |group| GemmProblem {
            shape: GemmShape {
                m,
                n: shape.n,
                k: shape.k,
            },
            group,
            output: self.output,
        };
        let dual = self.chosen(problem(GroupSize::Along(128)))?;
        let coarse = self.chosen(problem(GroupSize::WholeRow))?;
        grains.dual.check(self.device, &dual, &tokens)?;
        grains.coarse.check(self.device, &coarse, &tokens)?;
        let float = self.fastest_float(problem(GroupSize::Along(128)), grains, &tokens)?;
        let d = grains.dual.output(self.device, dual.problem())?;
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let of_operands = |gemm: &Gemm, operands: &Operands| {
                times_s(self.device, self.options.repeat, operands.copies(), |i| {
                    gemm.launch(operands.weights(i), &tokens.device, &d)
                })
            };
            times[0].extend(of_operands(&dual, &grains.dual)?);
            times[1].extend(of_operands(&coarse, &grains.coarse)?);
            let copies = grains.float.copies();
            times[2].extend(times_s(self.device, self.options.repeat, copies, |i| {
                float.launch(grains.float.weights(i), &tokens.device, &d)
            })?);
        }
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        let row = |gemm: &Gemm, chosen, times: &[f64], size: &str| Row {
            group_size: size.to_owned(),
            ..self.row(
                shape,
                gemm.problem(),
                (gemm.config(), chosen),
                times,
                &grains.dual,
                (None, None),
            )
        };
        Ok([
            row(&dual, true, &times[0], DUAL),
            row(&coarse, true, &times[1], COARSE),
            row(&float, false, &times[2], FLOAT),
        ])
    }

    fn chosen(&self, problem: GemmProblem) -> Result<Gemm> {
        let info = self.device.info();
        let config = select(&problem, info)
            .with_context(|| format!("no kernel for {} on {}", problem.shape, info.name))?;
        self.ready(problem, config)
    }

    fn ready(&self, problem: GemmProblem, config: GemmConfig) -> Result<Gemm> {
        let mut gemm = Gemm::new(&self.jit, self.device, problem, config)?;
        gemm.set_overlap(!self.options.no_overlap);
        Ok(gemm)
    }

    /// No cost function chooses for the comparison: it gets its fastest size, measured.
    fn fastest_float(&self, problem: GemmProblem, grains: &Grains, tokens: &Tokens) -> Result<Gemm> {
        let m = problem.shape.m;
        let suits = |tile_m: usize| match m {
            0..=16 => tile_m == 16,
            17..=64 => tile_m == 64,
            65..=256 => tile_m >= 64,
            _ => tile_m > 64,
        };
        let d = grains.dual.output(self.device, &problem)?;
        let mut fastest: Option<(f64, Gemm)> = None;
        let variants = FLOAT_SCALES_TABLE
            .iter()
            .filter(|variant| suits(variant.tile_m()) && variant.can_run(&problem, self.device.info()));
        for &variant in variants {
            let split = Split::Whole;
            let gemm = self.ready(problem, GemmConfig { variant, split })?;
            grains.float.check(self.device, &gemm, tokens)?;
            let times = times_s(self.device, 1, grains.float.copies(), |i| {
                gemm.launch(grains.float.weights(i), &tokens.device, &d)
            })?;
            if fastest.as_ref().is_none_or(|(time_s, _)| times[0] < *time_s) {
                fastest = Some((times[0], gemm));
            }
        }
        let (_, gemm) = fastest.context("gemm_w4f_sm90 needs a Hopper card")?;
        Ok(gemm)
    }
}

/// Times side by side, and the speed of the dual grain over both others: above 1 it is faster.
pub fn text(rows: &[Row]) -> String {
    let cells: Vec<&[Row]> = rows.chunks_exact(3).collect();
    let over_dual = |cell: &[Row]| [1, 2].map(|other: usize| cell[other].time_s / cell[0].time_s);
    let mut lines: Vec<Vec<String>> = Vec::new();
    let line = |first: [String; 2], times: [String; 3], ratios: [f64; 2], config: String| {
        let ratios = ratios.map(|ratio| format!("{ratio:.3}"));
        first
            .into_iter()
            .chain(times)
            .chain(ratios)
            .chain([config])
            .collect::<Vec<_>>()
    };
    for cell in &cells {
        let micros = |row: &Row| format!("{:.2}", row.time_s * 1e6);
        lines.push(line(
            [cell[0].shape.clone(), cell[0].m.to_string()],
            [&cell[0], &cell[1], &cell[2]].map(micros),
            over_dual(cell),
            format!("{}, {}", cell[0].config, cell[2].config),
        ));
    }
    let mut ms: Vec<usize> = cells.iter().map(|cell| cell[0].m).collect();
    ms.sort_unstable();
    ms.dedup();
    for m in ms.iter().map(Some).chain([None]) {
        let of_m = cells.iter().filter(|cell| m.is_none_or(|&m| cell[0].m == m));
        let ratios: Vec<[f64; 2]> = of_m.map(|cell| over_dual(cell)).collect();
        let mean = [0, 1].map(|i| {
            let logs = ratios.iter().map(|ratio| ratio[i].ln()).sum::<f64>();
            (logs / ratios.len().max(1) as f64).exp()
        });
        let words = m.map_or("all".to_owned(), usize::to_string);
        let none = || String::new();
        lines.push(line(
            ["mean".to_owned(), words],
            [none(), none(), none()],
            mean,
            none(),
        ));
    }
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
