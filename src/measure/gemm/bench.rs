//! A card, and everything on it that times the products of one shape after the other.

use anyhow::{Context, Result};
use dualgrain::format::{GemmShape, GroupSize};
use dualgrain_cuda::{
    Analytic, Buffer, Cost as _, Gemm, GemmConfig, GemmProblem, Gpu, Jit, Output, PackedLinear, enumerate,
    read_bytes_per_s, select, stand_ins, times_s,
};
use dualgrain_perf::choose::gpu::PredictedCost;
use dualgrain_perf::{Model, Objective};

use crate::cli::arguments::{BenchGemm, OutputKind, Shape};
use crate::measure::gemm::operands::{Operands, Tokens, room_for};
use crate::measure::gemm::record::{Ceilings, Row, tops};
use crate::measure::gemm::rivals::{RivalTimes, Rivals};

/// A card with what a cell needs.
pub struct Bench<'a> {
    pub device: &'a Gpu,
    pub options: &'a BenchGemm,
    pub ceilings: Ceilings,
    jit: Jit,
    rivals: Rivals<'a>,
    /// The fitted model of this card, if one comes with the program.
    model: Option<Model>,
}

/// One number of tokens on one shape, and what NVIDIA's libraries take for it.
pub struct Cell<'a> {
    pub shape: &'a Shape,
    pub problem: GemmProblem,
    pub rivals: RivalTimes,
}

impl<'a> Bench<'a> {
    /// Opens the libraries asked for and measures what the card does at best.
    pub fn new(device: &'a Gpu, options: &'a BenchGemm) -> Result<Self> {
        let jit = Jit::new(device)?;
        let rivals = Rivals::open(device, options)?;
        let model = Model::shipped_for(&device.info().name, device.info().num_sms);
        let int8_tops = rivals.ceiling_tops()?;
        let read_bytes_per_s = read_bytes_per_s(&jit, device, options.repeat)?;
        Ok(Self {
            device,
            options,
            ceilings: Ceilings {
                read_bytes_per_s,
                int8_tops,
            },
            jit,
            rivals,
            model,
        })
    }

    /// Rows of all numbers of tokens.
    pub fn time_shape(&self, shape: &Shape) -> Result<Vec<Row>> {
        let group = self.options.group_size;
        let operands = Operands::new(self.device, (shape.n, shape.k), self.options.group_size)?;
        let rivals = self.rivals.times(&operands)?;
        let mut rows = Vec::new();
        for (&m, rivals) in self.options.m.iter().zip(rivals) {
            let cell = Cell {
                shape,
                problem: self.problem(shape, m, group),
                rivals,
            };
            rows.extend(self.time_cell(&cell, &operands)?);
        }
        Ok(rows)
    }

    /// The product of `m` tokens with a shape.
    pub fn problem(&self, shape: &Shape, m: usize, group: GroupSize) -> GemmProblem {
        let (n, k) = (shape.n, shape.k);
        GemmProblem {
            shape: GemmShape { m, n, k },
            group,
            output: match self.options.output {
                OutputKind::F32 => Output::F32,
                OutputKind::F16 => Output::F16,
                OutputKind::Bf16 => Output::Bf16,
            },
        }
    }

    /// What the card's table, or else the cost function, chooses, and with `--all-configs` everything else that was enumerated.
    fn time_cell(&self, cell: &Cell<'_>, operands: &Operands) -> Result<Vec<Row>> {
        let info = self.device.info();
        let chosen = self.choose(&cell.problem)?;
        let configs = match self.options.all_configs {
            true => [enumerate(&cell.problem, info), stand_ins(&cell.problem, info)].concat(),
            false => vec![chosen],
        };
        let tokens = operands.tokens(self.device, cell.problem.shape.m)?;
        self.check_sums(&cell.problem, chosen, operands, &tokens)?;
        let time = |config: GemmConfig| {
            let gemm = self.gemm(cell.problem, config)?;
            operands.check(self.device, &gemm, &tokens)?;
            let d = room_for(self.device, &cell.problem)?;
            let times = self.times(&gemm, operands.copies(), &tokens, &d)?;
            Ok(self.row(cell, (config, config == chosen), &times, operands.image_bytes()))
        };
        configs.into_iter().map(time).collect()
    }

    /// Sums first: the chosen configuration, compiled to write them.
    fn check_sums(
        &self,
        problem: &GemmProblem,
        chosen: GemmConfig,
        operands: &Operands,
        tokens: &Tokens,
    ) -> Result<()> {
        let sums = GemmProblem {
            output: Output::Sums,
            ..*problem
        };
        if !enumerate(&sums, self.device.info()).contains(&chosen) {
            return Ok(());
        }
        let gemm = Gemm::new(&self.jit, self.device, sums, chosen)?;
        operands.check(self.device, &gemm, tokens)
    }

    /// What is chosen on this card.
    pub fn choose(&self, problem: &GemmProblem) -> Result<GemmConfig> {
        let info = self.device.info();
        select(problem, info).with_context(|| format!("no kernel for {} on {}", problem.shape, info.name))
    }

    /// A product that is ready to run.
    pub fn gemm(&self, problem: GemmProblem, config: GemmConfig) -> Result<Gemm> {
        let mut gemm = Gemm::new(&self.jit, self.device, problem, config)?;
        gemm.set_overlap(!self.options.no_overlap);
        Ok(gemm)
    }

    /// Seconds of each repetition, the least first.
    pub fn times(
        &self,
        gemm: &Gemm,
        weights: &[PackedLinear],
        tokens: &Tokens,
        d: &Buffer,
    ) -> Result<Vec<f64>> {
        let repeat = self.options.repeat;
        let launch = |i: usize| gemm.launch(&weights[i], &tokens.device, d);
        Ok(times_s(self.device, repeat, weights.len(), launch)?)
    }

    /// What is recorded of a configuration whose weights take `image_bytes`; `times` begin with the least.
    pub fn row(
        &self,
        cell: &Cell<'_>,
        (config, chosen): (GemmConfig, bool),
        times: &[f64],
        image_bytes: usize,
    ) -> Row {
        let problem = &cell.problem;
        let GemmShape { m, n, k } = problem.shape;
        let time_s = times[times.len() / 2];
        let tops = tops((m, n, k), time_s);
        let read_bytes_per_s = (image_bytes + m * k) as f64 / time_s;
        let written_bytes_per_s = (m * n * problem.output.size_bytes()) as f64 / time_s;
        let memory_fraction = (read_bytes_per_s + written_bytes_per_s) / self.ceilings.read_bytes_per_s;
        let of_ceiling = |most: f64| memory_fraction.max(tops / most);
        Row {
            shape: cell.shape.name.clone(),
            kernel: config.variant.kernel(),
            config: config.to_string(),
            m,
            n,
            k,
            group_size: self.options.group_size.to_string(),
            chosen,
            time_s,
            tops,
            read_bytes_per_s,
            cublas_bf16_time_s: cell.rivals.bf16_s,
            cublaslt_int8_time_s: cell.rivals.int8_s,
            least_time_s: times[0],
            predicted_s: Analytic.time_s(problem, &config, self.device.info()),
            ceiling_fraction: self.ceilings.int8_tops.map(of_ceiling),
            learned_s: self.learned_s(problem, &config),
        }
    }

    fn learned_s(&self, problem: &GemmProblem, config: &GemmConfig) -> Option<f64> {
        let by = Objective::Time;
        let learned = PredictedCost {
            model: self.model.as_ref()?,
            by,
        };
        Some(learned.prediction(problem, config)?.time_s.value)
    }
}
