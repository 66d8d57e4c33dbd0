//! `bench gemm`: W4A8 products on a GPU, correctness first, then times beside NVIDIA's own libraries.

mod grains;
mod operands;
mod peers;
mod record;

use std::fs::OpenOptions;
use std::path::Path;

use crate::cli::arguments::{BenchGemm, OutputKind, Rival, Shape};
use crate::cli::terminal::Terminal;
use crate::measure::card_reading::CardReading;
use crate::measure::gemm::operands::{Operands, group_size, random, random_bf16};
use crate::measure::gemm::peers::{Ours, Peers};
use crate::measure::gemm::record::{CEILING_SIDE, Ceilings, Report, Row, csv, text};
use crate::measure::revision::REVISION;
use anyhow::{Context, Result, ensure};
use dualgrain_cuda::{
    Analytic, Buffer, CublasBf16, CublasLtInt8, CudaError, Gemm, GemmConfig, GemmProblem, Gpu, Jit, Output,
    driver_version, enumerate, read_bytes_per_s, rotation_copies, select, stand_ins, times_s,
};
use dualgrain_format::GemmShape;
use dualgrain_perf::selection::Learned;
use dualgrain_perf::{By, Model};

/// NVIDIA's libraries, as far as they were asked for.
struct Rivals {
    bf16: Option<CublasBf16>,
    int8: Option<CublasLtInt8>,
}

/// A card with what a cell needs.
pub struct Bench<'a> {
    pub device: &'a Gpu,
    pub jit: Jit,
    rivals: Rivals,
    pub options: &'a BenchGemm,
    pub output: Output,
    ceilings: Ceilings,
    /// The fitted model of this card, if one comes with the program.
    model: Option<Model>,
}

/// Times every shape and number of tokens.
pub fn run(options: &BenchGemm, terminal: &Terminal) -> Result<()> {
    ensure!(
        options.peers.is_none() || options.against.contains(&Rival::CublasBf16),
        "--peers compares through cuBLAS: add --against cublas-bf16"
    );
    // What can be wrong is found before the card's time is spent.
    let shapes: Vec<&Shape> = options.shapes.iter().flat_map(|shapes| &shapes.0).collect();
    let peers = options.peers.as_deref().map(Peers::read).transpose()?;
    options.csv.as_deref().map(can_write).transpose()?;
    let device = Gpu::open(options.device)?;
    let mut bench = Bench {
        jit: Jit::new(&device)?,
        rivals: Rivals::open(&device, &options.against)?,
        device: &device,
        options,
        output: output(options.output),
        ceilings: Ceilings::default(),
        model: Model::shipped_for(&device.info().name, device.info().num_sms),
    };
    bench.ceilings = bench.measure_ceilings()?;
    let mut report = Report {
        device: device.info().name.clone(),
        driver: driver_version()?.0,
        revision: REVISION,
        before: CardReading::of(device.info()),
        after: CardReading::of(device.info()),
        output: output_name(options.output),
        repeats: options.repeat,
        overlap: !options.no_overlap,
        ceilings: bench.ceilings,
        rows: Vec::new(),
    };
    for (index, shape) in shapes.iter().enumerate() {
        terminal.progress("timing", &shape.name, index as u64, shapes.len() as u64);
        report.rows.extend(match options.grains {
            true => bench.time_grains(shape)?,
            false => bench.time_shape(shape)?,
        });
        report.after = CardReading::of(device.info());
        // Time on a card is dear: what an interrupted run has measured is kept.
        if let Some(path) = &options.csv {
            std::fs::write(path, csv(&report)).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    let mut words = match options.grains {
        true => grains::text(&report.rows),
        false => text(&report),
    };
    if let Some(peers) = &peers {
        words += "\n";
        words += &peers.text(&ours(&report.rows));
    }
    terminal.result(&report, &words)
}

/// Fails where a file could not be written later. One that is there stays as it is, one that is not is not made.
fn can_write(path: &Path) -> Result<()> {
    let existed = path.symlink_metadata().is_ok();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("writing {}", path.display()))?;
    if !existed {
        std::fs::remove_file(path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What the peers are compared with: chosen configurations that were timed beside cuBLAS.
fn ours(rows: &[Row]) -> Vec<Ours<'_>> {
    let timed = rows.iter().filter(|row| row.chosen);
    let ours = timed.filter_map(|row| {
        Some(Ours {
            shape: &row.shape,
            m: row.m,
            time_s: row.time_s,
            bf16_s: row.cublas_bf16_time_s?,
        })
    });
    ours.collect()
}

fn output(kind: OutputKind) -> Output {
    match kind {
        OutputKind::F32 => Output::F32,
        OutputKind::F16 => Output::F16,
        OutputKind::Bf16 => Output::Bf16,
    }
}

fn output_name(kind: OutputKind) -> &'static str {
    match kind {
        OutputKind::F32 => "f32",
        OutputKind::F16 => "f16",
        OutputKind::Bf16 => "bf16",
    }
}

impl Rivals {
    fn open(device: &Gpu, asked: &[Rival]) -> Result<Self, CudaError> {
        let wants = |rival| asked.contains(&rival);
        Ok(Self {
            bf16: wants(Rival::CublasBf16)
                .then(|| CublasBf16::new(device))
                .transpose()?,
            int8: wants(Rival::CublasInt8)
                .then(|| CublasLtInt8::new(device))
                .transpose()?,
        })
    }
}

impl Bench<'_> {
    fn measure_ceilings(&self) -> Result<Ceilings> {
        let int8_tops = match &self.rivals.int8 {
            Some(_) => {
                let side = CEILING_SIDE;
                let w8 = self
                    .device
                    .upload_repeated(&random_bytes(side * 64), side * side)?;
                let time_s = self.time_int8((side, side, side), std::slice::from_ref(&w8))?;
                time_s.map(|time_s| tops(side, side, side, time_s))
            }
            None => None,
        };
        Ok(Ceilings {
            read_bytes_per_s: read_bytes_per_s(&self.jit, self.device, self.options.repeat)?,
            int8_tops,
        })
    }

    fn median_s(&self, copies: usize, launch: impl Fn(usize) -> Result<(), CudaError>) -> Result<f64> {
        let times = times_s(self.device, self.options.repeat, copies, launch)?;
        Ok(times[times.len() / 2])
    }

    fn time_shape(&self, shape: &Shape) -> Result<Vec<Row>> {
        let group = group_size(&self.options.group_size)?;
        let operands = Operands::new(self.device, (shape.n, shape.k), &self.options.group_size)?;
        let bf16 = self.time_bf16(&operands)?;
        let int8 = self.time_w8(&operands)?;
        let rivals = bf16.into_iter().zip(int8);
        let mut rows = Vec::new();
        for (&m, rivals) in self.options.m.iter().zip(rivals) {
            let problem = GemmProblem {
                shape: GemmShape {
                    m,
                    n: shape.n,
                    k: shape.k,
                },
                group,
                output: self.output,
            };
            rows.extend(self.time_cell(shape, &problem, &operands, rivals)?);
        }
        Ok(rows)
    }

    /// What the card's table, or else the cost function, chooses, and with `--all-configs` everything else that was enumerated.
    fn time_cell(
        &self,
        shape: &Shape,
        problem: &GemmProblem,
        operands: &Operands,
        rivals: (Option<f64>, Option<f64>),
    ) -> Result<Vec<Row>> {
        let info = self.device.info();
        let chosen = select(problem, info)
            .with_context(|| format!("no kernel for {} on {}", problem.shape, info.name))?;
        let configs = match self.options.all_configs {
            true => [enumerate(problem, info), stand_ins(problem, info)].concat(),
            false => vec![chosen],
        };
        let tokens = operands.tokens(self.device, problem.shape.m)?;
        // Sums first: the same configuration, compiled to write them.
        let sums = GemmProblem {
            output: Output::Sums,
            ..*problem
        };
        if enumerate(&sums, info).contains(&chosen) {
            operands.check(
                self.device,
                &Gemm::new(&self.jit, self.device, sums, chosen)?,
                &tokens,
            )?;
        }
        let mut rows = Vec::new();
        for config in configs {
            let mut gemm = Gemm::new(&self.jit, self.device, *problem, config)?;
            gemm.set_overlap(!self.options.no_overlap);
            operands.check(self.device, &gemm, &tokens)?;
            let d = operands.output(self.device, problem)?;
            let times = times_s(self.device, self.options.repeat, operands.copies(), |i| {
                gemm.launch(operands.weights(i), &tokens.device, &d)
            })?;
            rows.push(self.row(
                shape,
                problem,
                (config, config == chosen),
                &times,
                operands,
                rivals,
            ));
        }
        Ok(rows)
    }

    pub fn row(
        &self,
        shape: &Shape,
        problem: &GemmProblem,
        (config, chosen): (GemmConfig, bool),
        times: &[f64],
        operands: &Operands,
        rivals: (Option<f64>, Option<f64>),
    ) -> Row {
        use dualgrain_cuda::Cost as _;
        let GemmShape { m, n, k } = problem.shape;
        let time_s = times[times.len() / 2];
        let tops = tops(m, n, k, time_s);
        let read_bytes_per_s = (operands.weights(0).image_bytes() + m * k) as f64 / time_s;
        let written_bytes_per_s = (m * n * problem.output.size_bytes()) as f64 / time_s;
        let memory_fraction = (read_bytes_per_s + written_bytes_per_s) / self.ceilings.read_bytes_per_s;
        Row {
            shape: shape.name.clone(),
            kernel: config.variant.kernel(),
            config: config.to_string(),
            m,
            n,
            k,
            group_size: self.options.group_size.clone(),
            chosen,
            time_s,
            tops,
            read_bytes_per_s,
            cublas_bf16_time_s: rivals.0,
            cublaslt_int8_time_s: rivals.1,
            least_time_s: times[0],
            predicted_s: Analytic.time_s(problem, &config, self.device.info()),
            ceiling_fraction: self
                .ceilings
                .int8_tops
                .map(|most| memory_fraction.max(tops / most)),
            learned_s: self.learned_s(problem, &config),
        }
    }

    fn learned_s(&self, problem: &GemmProblem, config: &GemmConfig) -> Option<f64> {
        let by = By::Time;
        let learned = Learned {
            model: self.model.as_ref()?,
            by,
        };
        Some(learned.prediction(problem, config)?.time_s.value)
    }

    /// Seconds for each number of tokens.
    fn time_bf16(&self, operands: &Operands) -> Result<Vec<Option<f64>>> {
        let Some(blas) = &self.rivals.bf16 else {
            return Ok(vec![None; self.options.m.len()]);
        };
        let (n, k) = operands.shape();
        let weights = copies_of(self.device, || operands.bf16(self.device))?;
        let time = |m: usize| -> Result<Option<f64>> {
            let a = self.device.upload_repeated(&random_bf16(m.min(64) * k), m * k)?;
            let d = self.device.filled(2 * m * n, 0)?;
            let launch = |i: usize| blas.launch((m, n, k), &a, &weights[i], &d);
            Ok(Some(self.median_s(weights.len(), launch)?))
        };
        self.options.m.iter().map(|&m| time(m)).collect()
    }

    /// Seconds for each number of tokens; none where the library has no algorithm.
    fn time_w8(&self, operands: &Operands) -> Result<Vec<Option<f64>>> {
        if self.rivals.int8.is_none() {
            return Ok(vec![None; self.options.m.len()]);
        }
        let (n, k) = operands.shape();
        let weights = copies_of(self.device, || operands.w8(self.device))?;
        let times = self
            .options
            .m
            .iter()
            .map(|&m| self.time_int8((m, n, k), &weights));
        times.collect()
    }

    /// Where the library has no algorithm for so many tokens, those of the next multiple of 16.
    fn time_int8(&self, (m, n, k): (usize, usize, usize), weights: &[Buffer]) -> Result<Option<f64>> {
        let Some(blas) = &self.rivals.int8 else {
            return Ok(None);
        };
        let (m, product) = match blas.product((m, n, k)) {
            Ok(product) => (m, product),
            Err(_) => {
                let padded = m.next_multiple_of(16);
                match blas.product((padded, n, k)) {
                    Ok(product) => (padded, product),
                    Err(_) => return Ok(None),
                }
            }
        };
        let a = self.device.upload_repeated(&random_bytes(m.min(64) * k), m * k)?;
        let d = self.device.filled(4 * m * n, 0)?;
        let timed = self.median_s(weights.len(), |i| product.launch(&a, &weights[i], &d));
        Ok(timed.ok())
    }
}

/// A buffer and copies of it that pass the second-level cache together.
fn copies_of(
    device: &Gpu,
    first: impl FnOnce() -> Result<Buffer, CudaError>,
) -> Result<Vec<Buffer>, CudaError> {
    let mut all = vec![first()?];
    for _ in 1..rotation_copies(device, all[0].len_bytes()) {
        let copy = device.filled(all[0].len_bytes(), 0)?;
        copy.copy_from(&all[0])?;
        all.push(copy);
    }
    Ok(all)
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut next = random(len as u64);
    (0..len)
        .map(|_| ((next() % 255) as i32 - 127) as i8 as u8)
        .collect()
}

/// 2 M N K operations over the time.
fn tops(m: usize, n: usize, k: usize, time_s: f64) -> f64 {
    2.0 * m as f64 * n as f64 * k as f64 / time_s / 1e12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_cannot_be_written_is_found_before_anything_is_timed() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new.csv"), folder.path().join("old.csv"));
        can_write(&new).unwrap();
        assert!(!new.exists(), "nothing is left behind");
        std::fs::write(&old, "rows").unwrap();
        can_write(&old).unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "rows");
        for path in [folder.path().to_owned(), folder.path().join("no/such.csv")] {
            let error = can_write(&path).unwrap_err();
            assert!(error.to_string().contains("writing"), "{error}");
        }
    }
}
