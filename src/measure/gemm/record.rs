//! What `bench gemm` records: its rows, the file and the table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::table::table;
use crate::measure::card_reading::CardReading;

/// Side of the square int8 product that stands for the arithmetic ceiling.
pub const CEILING_SIDE: usize = 8_192;

/// One timed configuration of one cell.
#[derive(Serialize, Clone)]
pub struct Row {
    pub shape: String,
    pub kernel: &'static str,
    pub config: String,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub group_size: String,
    pub chosen: bool,
    pub time_s: f64,
    pub tops: f64,
    pub read_bytes_per_s: f64,
    pub cublas_bf16_time_s: Option<f64>,
    pub cublaslt_int8_time_s: Option<f64>,
    pub least_time_s: f64,
    pub predicted_s: f64,
    pub ceiling_fraction: Option<f64>,
    /// What the card's fitted model predicts.
    pub learned_s: Option<f64>,
}

/// What the card does at best, measured in this run.
#[derive(Serialize, Default, Clone, Copy)]
pub struct Ceilings {
    pub read_bytes_per_s: f64,
    pub int8_tops: Option<f64>,
}

/// A run.
#[derive(Serialize)]
pub struct Report {
    /// Product name of the card.
    pub device: String,
    /// CUDA version of the driver.
    pub driver: String,
    /// The program's own revision, `git describe` when it was built.
    pub revision: &'static str,
    /// The card before the first timing and after the last one so far; why not, where it can not be read.
    pub before: CardReading,
    pub after: CardReading,
    pub output: &'static str,
    pub repeats: usize,
    pub overlap: bool,
    pub ceilings: Ceilings,
    pub rows: Vec<Row>,
}

const HEADER: &str = "shape,kernel,config,m,n,k,group_size,chosen,time_s,tops,read_bytes_per_s,cublas_bf16_time_s,\
                      cublaslt_int8_time_s,least_time_s,predicted_s,ceiling_fraction,learned_s";

/// The file of a record.
pub fn csv(report: &Report) -> String {
    let ceilings = &report.ceilings;
    let mut text = format!(
        "# {}, driver CUDA {}; dualgrain {} ({}); output {}; median and least of {} repetitions; launches {}\n\
         # before: {}\n\
         # after: {}\n\
         # memory read at {:.0} B/s, cuBLASLt int8 at {CEILING_SIDE} cubed: {}\n{HEADER}\n",
        report.device,
        report.driver,
        env!("CARGO_PKG_VERSION"),
        report.revision,
        report.output,
        report.repeats,
        if report.overlap {
            "overlap"
        } else {
            "one after another"
        },
        report.before,
        report.after,
        ceilings.read_bytes_per_s,
        ceilings
            .int8_tops
            .map_or("not measured".to_owned(), |tops| format!("{tops:.0} TOPS"))
    );
    let seconds = |time: Option<f64>| time.map_or(String::new(), |time| format!("{time:.9}"));
    for row in &report.rows {
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{:.9},{:.3},{:.0},{},{},{:.9},{:.9},{},{}",
            row.shape,
            row.kernel,
            row.config,
            row.m,
            row.n,
            row.k,
            row.group_size,
            row.chosen,
            row.time_s,
            row.tops,
            row.read_bytes_per_s,
            seconds(row.cublas_bf16_time_s),
            seconds(row.cublaslt_int8_time_s),
            row.least_time_s,
            row.predicted_s,
            row.ceiling_fraction
                .map_or(String::new(), |share| format!("{share:.3}")),
            seconds(row.learned_s)
        );
    }
    text
}

/// The table of the chosen configurations.
pub fn text(report: &Report) -> String {
    let header = [
        "shape",
        "m",
        "config",
        "us",
        "TOPS",
        "GB/s",
        "of ceiling",
        "x bf16",
        "x int8",
        "learned us",
        "best us",
        "regret",
    ];
    let ratio = |rival: Option<f64>, time_s: f64| {
        rival.map_or("-".to_owned(), |rival| format!("{:.2}", rival / time_s))
    };
    let chosen = report.rows.iter().filter(|row| row.chosen);
    let rows = chosen.map(|row| {
        let same_cell = report
            .rows
            .iter()
            .filter(|other| (&other.shape, other.m) == (&row.shape, row.m));
        let best_s = same_cell.map(|other| other.time_s).fold(f64::INFINITY, f64::min);
        vec![
            row.shape.clone(),
            row.m.to_string(),
            row.config.clone(),
            format!("{:.2}", row.time_s * 1e6),
            format!("{:.0}", row.tops),
            format!("{:.0}", row.read_bytes_per_s / 1e9),
            row.ceiling_fraction
                .map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
            ratio(row.cublas_bf16_time_s, row.time_s),
            ratio(row.cublaslt_int8_time_s, row.time_s),
            row.learned_s
                .map_or("-".to_owned(), |learned_s| format!("{:.2}", learned_s * 1e6)),
            format!("{:.2}", best_s * 1e6),
            format!("{:.0} %", 100.0 * (row.time_s / best_s - 1.0)),
        ]
    });
    format!(
        "{}, driver CUDA {}, {} outputs; every product equals the specification; memory reads at {:.0} GB/s\n{}",
        report.device,
        report.driver,
        report.output,
        report.ceilings.read_bytes_per_s / 1e9,
        table(&header, &rows.collect::<Vec<_>>())
    )
}
