//! What `bench gemm` records: its rows, the file and the table.

use serde::Serialize;

use crate::cli::table::{or_dash, table};
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

/// 2 M N K operations over the time, in 1e12.
pub fn tops((m, n, k): (usize, usize, usize), time_s: f64) -> f64 {
    2.0 * m as f64 * n as f64 * k as f64 / time_s / 1e12
}

/// The file of a record.
pub fn csv(report: &Report) -> String {
    let mut text = head(report);
    for row in &report.rows {
        text += &csv_line(row);
    }
    text
}

fn head(report: &Report) -> String {
    let ceilings = &report.ceilings;
    let launches = match report.overlap {
        true => "overlap",
        false => "one after another",
    };
    let int8 = ceilings.int8_tops;
    format!(
        "# {}, driver CUDA {}; dualgrain {} ({}); output {}; median and least of {} repetitions; launches {launches}\n\
         # before: {}\n\
         # after: {}\n\
         # memory read at {:.0} B/s, cuBLASLt int8 at {CEILING_SIDE} cubed: {}\n{HEADER}\n",
        report.device,
        report.driver,
        env!("CARGO_PKG_VERSION"),
        report.revision,
        report.output,
        report.repeats,
        report.before,
        report.after,
        ceilings.read_bytes_per_s,
        int8.map_or("not measured".to_owned(), |tops| format!("{tops:.0} TOPS"))
    )
}

fn csv_line(row: &Row) -> String {
    let seconds = |time: Option<f64>| time.map_or(String::new(), |time| format!("{time:.9}"));
    let share = row.ceiling_fraction;
    format!(
        "{},{},{},{},{},{},{},{},{:.9},{:.3},{:.0},{},{},{:.9},{:.9},{},{}\n",
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
        share.map_or(String::new(), |share| format!("{share:.3}")),
        seconds(row.learned_s)
    )
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
    let chosen = report.rows.iter().filter(|row| row.chosen);
    let rows: Vec<_> = chosen.map(|row| cells(row, best_s(report, row))).collect();
    format!(
        "{}, driver CUDA {}, {} outputs; every product equals the specification; memory reads at {:.0} GB/s\n{}",
        report.device,
        report.driver,
        report.output,
        report.ceilings.read_bytes_per_s / 1e9,
        table(&header, &rows)
    )
}

/// Seconds of the fastest configuration that was timed for the same product.
fn best_s(report: &Report, row: &Row) -> f64 {
    let same_product = |other: &&Row| (&other.shape, other.m) == (&row.shape, row.m);
    let times = report.rows.iter().filter(same_product).map(|other| other.time_s);
    times.fold(f64::INFINITY, f64::min)
}

fn cells(row: &Row, best_s: f64) -> Vec<String> {
    let ratio = |rival: Option<f64>| or_dash(rival.map(|rival| format!("{:.2}", rival / row.time_s)));
    let share = row.ceiling_fraction;
    let micros = |time_s: f64| format!("{:.2}", time_s * 1e6);
    vec![
        row.shape.clone(),
        row.m.to_string(),
        row.config.clone(),
        micros(row.time_s),
        format!("{:.0}", row.tops),
        format!("{:.0}", row.read_bytes_per_s / 1e9),
        or_dash(share.map(|share| format!("{:.0} %", 100.0 * share))),
        ratio(row.cublas_bf16_time_s),
        ratio(row.cublaslt_int8_time_s),
        or_dash(row.learned_s.map(micros)),
        micros(best_s),
        format!("{:.0} %", 100.0 * (row.time_s / best_s - 1.0)),
    ]
}
