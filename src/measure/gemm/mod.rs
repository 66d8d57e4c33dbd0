//! `bench gemm`: W4A8 products on a GPU, correctness first, then times beside NVIDIA's own libraries.

mod bench;
mod float_weights;
mod grains;
mod operands;
mod peers;
mod random;
mod record;
mod rivals;

use anyhow::{Context, Result, ensure};
use dualgrain_cuda::{Gpu, driver_version};

use crate::cli::arguments::{BenchGemm, OutputKind, Rival, Shape};
use crate::cli::output_file;
use crate::cli::terminal::Terminal;
use crate::measure::card_reading::CardReading;
use crate::measure::gemm::bench::Bench;
use crate::measure::gemm::peers::{Ours, Peers};
use crate::measure::gemm::record::{Report, Row, csv, text};
use crate::measure::revision::REVISION;

/// Times every shape and number of tokens.
pub fn run(options: &BenchGemm, terminal: &Terminal) -> Result<()> {
    ensure!(
        options.peers.is_none() || options.against.contains(&Rival::CublasBf16),
        "--peers compares through cuBLAS: add --against cublas-bf16"
    );
    // What can be wrong is found before the card's time is spent.
    let peers = options.peers.as_deref().map(Peers::read).transpose()?;
    if let Some(path) = &options.csv {
        output_file::check(path, output_file::PRODUCTS, options.replacing.replace)?;
        output_file::can_write(path)?;
    }
    let device = Gpu::open(options.device)?;
    let report = time_shapes(&Bench::new(&device, options)?, terminal)?;
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

fn time_shapes(bench: &Bench<'_>, terminal: &Terminal) -> Result<Report> {
    let shapes: Vec<&Shape> = bench.options.shapes.iter().flat_map(|shapes| &shapes.0).collect();
    let mut report = empty_report(bench)?;
    for (index, shape) in shapes.iter().enumerate() {
        terminal.progress("timing", &shape.name, index as u64, shapes.len() as u64);
        report.rows.extend(match bench.options.grains {
            true => grains::time(bench, shape)?,
            false => bench.time_shape(shape)?,
        });
        report.after = CardReading::of(bench.device.info());
        // Time on a card is dear: what an interrupted run has measured is kept.
        if let Some(path) = &bench.options.csv {
            std::fs::write(path, csv(&report)).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(report)
}

fn empty_report(bench: &Bench<'_>) -> Result<Report> {
    let info = bench.device.info();
    Ok(Report {
        device: info.name.clone(),
        driver: driver_version()?.0,
        revision: REVISION,
        before: CardReading::of(info),
        after: CardReading::of(info),
        output: output_name(bench.options.output),
        repeats: bench.options.repeat,
        overlap: !bench.options.no_overlap,
        ceilings: bench.ceilings,
        rows: Vec::new(),
    })
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

fn output_name(kind: OutputKind) -> &'static str {
    match kind {
        OutputKind::F32 => "f32",
        OutputKind::F16 => "f16",
        OutputKind::Bf16 => "bf16",
    }
}
