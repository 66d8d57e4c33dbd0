//! What `bench` gives back: a table, one JSON object, or CSV.

use std::fmt::Write as _;
use std::path::Path;

use dualgrain::engine::ModelConfig;
use serde::Serialize;

use crate::cli::table::{or_dash, table};
use crate::cli::units::bytes;
use crate::measure::machine;
use crate::measure::revision::REVISION;

use crate::run::bench::rate::Rate;
use crate::run::bench::row::{OperationTime, Row};

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// Sources it was built from.
    pub revision: &'static str,
    /// The processor's name.
    pub cpu: Option<String>,
    /// The folder.
    pub model: String,
    /// Instruction set of the kernels, or architecture of the card.
    pub kernels: String,
    /// The device that ran them.
    pub device: String,
    /// Whether prefill runs on integers, which the integer peak is beside.
    #[serde(skip)]
    pub is_quantized: bool,
    /// Packed linears, blocks and head.
    pub linear_bytes: usize,
    /// These and the embedding.
    pub weight_bytes: usize,
    /// The processor's largest cache.
    pub last_level_cache_bytes: Option<usize>,
    /// For each number of threads.
    pub machine: Vec<Machine>,
    /// Largest resident memory while models were loaded and timed, mapped file pages included.
    pub peak_resident_bytes: Option<u64>,
    /// One for each case, in the order they were timed.
    pub rows: Vec<Row>,
}

/// What the machine can do at best, measured before and after the rows with as many threads; the larger counts.
#[derive(Clone, Serialize)]
pub struct Machine {
    /// Threads of the rows.
    pub threads: usize,
    /// Threads that were measured: no more than there are cores.
    pub probe_threads: usize,
    /// Operations a second of dot products in registers; a multiply-add is two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int8_ops_per_s: Option<f64>,
    /// Bytes read from memory a second.
    pub read_bytes_per_s: f64,
    /// Each measurement of the above.
    pub read_bytes_per_s_samples: Vec<f64>,
    /// Each measurement of the above.
    pub int8_ops_per_s_samples: Vec<f64>,
}

impl Machine {
    /// Takes in another measurement.
    pub fn join(&mut self, other: &Self) {
        self.read_bytes_per_s = self.read_bytes_per_s.max(other.read_bytes_per_s);
        self.int8_ops_per_s = match (self.int8_ops_per_s, other.int8_ops_per_s) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.read_bytes_per_s_samples
            .extend(&other.read_bytes_per_s_samples);
        self.int8_ops_per_s_samples.extend(&other.int8_ops_per_s_samples);
    }

    fn text(&self) -> String {
        let samples = |samples: &[f64], digits: usize| {
            let each: Vec<_> = samples.iter().map(|s| format!("{:.digits$}", s / 1e9)).collect();
            each.join(" and ")
        };
        let peak = match self.int8_ops_per_s_samples.is_empty() {
            true => String::new(),
            false => format!("{} GOPS in registers, ", samples(&self.int8_ops_per_s_samples, 0)),
        };
        format!(
            "this machine with {} threads, before and after: {peak}{} GB/s read from memory\n",
            self.probe_threads,
            samples(&self.read_bytes_per_s_samples, 1)
        )
    }
}

impl Report {
    /// A report on the model in `folder` before anything is loaded.
    pub fn new(folder: &Path, config: &ModelConfig) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: REVISION,
            cpu: machine::cpu_name(),
            model: folder.display().to_string(),
            kernels: String::new(),
            device: String::new(),
            is_quantized: config.quantization.is_some(),
            linear_bytes: 0,
            weight_bytes: 0,
            last_level_cache_bytes: machine::last_level_cache_bytes(),
            machine: Vec::new(),
            peak_resident_bytes: None,
            rows: Vec::new(),
        }
    }

    /// Adds a measurement of the machine and sets the rows of as many threads beside the best of all.
    pub fn compare(&mut self, machine: Machine) {
        let best = self.join(machine);
        for row in self.rows.iter_mut().filter(|row| row.threads == best.threads) {
            row.prefill_share_of_peak = match (row.prefill_ops_per_s, best.int8_ops_per_s) {
                (Some(ops), Some(peak)) if self.is_quantized => Some(ops / peak),
                _ => None,
            };
            row.decode_share_of_read = row
                .decode_read_bytes_per_s
                .map(|read| read / best.read_bytes_per_s);
        }
    }

    /// What is known of the machine with as many threads, this measurement among it.
    fn join(&mut self, machine: Machine) -> Machine {
        let mut known = self.machine.iter_mut();
        match known.find(|known| known.threads == machine.threads) {
            Some(known) => {
                known.join(&machine);
                known.clone()
            }
            None => {
                self.machine.push(machine.clone());
                machine
            }
        }
    }

    /// The table with what belongs to it.
    pub fn text(&self) -> String {
        let peak = self
            .peak_resident_bytes
            .map_or(String::new(), |peak| format!(", peak memory {}", bytes(peak)));
        let machine: String = self.machine.iter().map(Machine::text).collect();
        let rows = match self.rows.iter().any(Row::is_of_card) {
            true => table(
                &CARD_HEADER,
                &self.rows.iter().map(card_cells).collect::<Vec<_>>(),
            ),
            false => table(&CPU_HEADER, &self.rows.iter().map(cells).collect::<Vec<_>>()),
        };
        format!(
            "{} on {} with {} kernels, weights {} (linears {}){peak}\n{machine}{rows}{}",
            self.model,
            self.device,
            self.kernels,
            bytes(self.weight_bytes as u64),
            bytes(self.linear_bytes as u64),
            self.operations() + &self.notes()
        )
    }

    /// Where the time goes, for rows that ran on a card.
    fn operations(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            for (what, times) in [
                ("a decoding step", &row.operations),
                ("the prompts", &row.prefill_operations),
            ] {
                if !times.is_empty() {
                    let (batch, times) = (row.batch, operations_text(times));
                    let _ = writeln!(text, "{what} of batch {batch} operation by operation: {times}");
                }
            }
        }
        text
    }

    fn notes(&self) -> String {
        let mut notes = String::from("Medians; +- is the standard deviation over the mean.\n");
        if self.rows.iter().any(|row| row.roofline_share.is_some()) {
            notes += "of roofline: the least time that reading linears and cache once and the card's peak allow, by the measured one.\n";
        }
        let cached = self.rows.iter().any(|row| row.linears_fit_cache);
        if let (Some(cache), true) = (self.last_level_cache_bytes, cached) {
            let _ = writeln!(
                notes,
                "cached: the linears fit the last-level cache ({}), so that memory does not bound decoding.",
                bytes(cache as u64)
            );
        }
        if self.rows.iter().any(Row::is_above_the_machine) {
            notes += "Above 100 %: the machine was faster while a row was timed than its probe found it, so the probe fell short.\n";
        }
        notes
    }

    /// Rows with all that a record needs.
    pub fn csv(&self) -> String {
        let names = [
            self.revision,
            self.cpu.as_deref().unwrap_or(""),
            &self.kernels,
            &self.device,
            &self.model,
        ];
        let names = names.map(|name| format!("\"{}\"", name.replace('"', "'").replace(',', ";")));
        let names = names.join(",");
        let mut csv = HEADER.to_owned();
        for row in &self.rows {
            let _ = writeln!(
                csv,
                "{names},{},{:.3},{},{},{},{}",
                measured_fields(row),
                row.load_s,
                self.linear_bytes,
                self.weight_bytes,
                row.cache_bytes,
                card_fields(row)
            );
        }
        csv
    }
}

const HEADER: &str = "revision,cpu,kernels,device,model,threads,batch,prompt_tokens,generate_tokens,rounds,\
                      prefill_tokens_per_s,prefill_mean,prefill_stddev,decode_tokens_per_s,decode_mean,decode_stddev,\
                      prefill_ops_per_s,prefill_share_of_peak,decode_read_bytes_per_s,decode_share_of_read,\
                      load_s,linear_bytes,weight_bytes,cache_bytes,step_s,energy_per_token_j,roofline_share,\
                      prefill_energy_per_token_j,prefill_roofline_share\n";

/// What a row holds of a case and its speeds, as in the header.
fn measured_fields(row: &Row) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
    let rate = |rate: &Option<Rate>| {
        let of = |f: fn(&Rate) -> f64| number(rate.as_ref().map(f));
        [of(|r| r.median), of(|r| r.mean), of(|r| r.stddev)].join(",")
    };
    [
        row.threads.to_string(),
        row.batch.to_string(),
        row.prompt_tokens.to_string(),
        row.generate_tokens.to_string(),
        row.rounds.to_string(),
        rate(&row.prefill),
        rate(&row.decode),
        number(row.prefill_ops_per_s),
        number(row.prefill_share_of_peak),
        number(row.decode_read_bytes_per_s),
        number(row.decode_share_of_read),
    ]
    .join(",")
}

/// What a card adds, as in the header.
fn card_fields(row: &Row) -> String {
    let fields = [
        row.step_s,
        row.energy_per_token_j,
        row.roofline_share,
        row.prefill_energy_per_token_j,
        row.prefill_roofline_share,
    ];
    let fields = fields.map(|value| value.map_or_else(String::new, |value| format!("{value:.9}")));
    fields.join(",")
}

/// Kinds of operations with the time of each, how many there are behind it.
fn operations_text(times: &[OperationTime]) -> String {
    let each = times.iter().map(|time| {
        let (name, count) = (time.operation, time.count_per_step);
        format!("{name} {:.0} us ({count:.0})", 1e6 * time.time_per_step_s)
    });
    each.collect::<Vec<_>>().join(", ")
}

const CPU_HEADER: [&str; 13] = [
    "threads",
    "batch",
    "prompt",
    "generate",
    "prefill tok/s",
    "+-",
    "decode tok/s",
    "+-",
    "prefill GOPS",
    "of peak",
    "decode GB/s",
    "of read",
    "cache",
];

const CARD_HEADER: [&str; 13] = [
    "batch",
    "prompt",
    "generate",
    "prefill tok/s",
    "+-",
    "J/token",
    "of roofline",
    "decode tok/s",
    "+-",
    "step ms",
    "J/token",
    "of roofline",
    "cache",
];

/// A row of a card's table.
fn card_cells(row: &Row) -> Vec<String> {
    let number = |value: Option<f64>, digits: usize| or_dash(value.map(|v| format!("{v:.digits$}")));
    let share = |share: Option<f64>| or_dash(share.map(|share| format!("{:.0} %", 100.0 * share)));
    let [prefill, prefill_spread] = rate_cells(&row.prefill);
    let [decode, decode_spread] = rate_cells(&row.decode);
    vec![
        row.batch.to_string(),
        row.prompt_tokens.to_string(),
        row.generate_tokens.to_string(),
        prefill,
        prefill_spread,
        number(row.prefill_energy_per_token_j, 4),
        share(row.prefill_roofline_share),
        decode,
        decode_spread,
        number(row.step_s.map(|step_s| 1e3 * step_s), 3),
        number(row.energy_per_token_j, 4),
        share(row.roofline_share),
        bytes(row.cache_bytes as u64),
    ]
}

/// A row of the CPU's table.
fn cells(row: &Row) -> Vec<String> {
    let giga = |value: Option<f64>, digits: usize| or_dash(value.map(|v| format!("{:.digits$}", v / 1e9)));
    let share = |share: Option<f64>| or_dash(share.map(|share| format!("{:.0} %", 100.0 * share)));
    let of_read = match row.decode_share_of_read {
        Some(_) if row.linears_fit_cache => "cached".to_owned(),
        other => share(other),
    };
    let [prefill, prefill_spread] = rate_cells(&row.prefill);
    let [decode, decode_spread] = rate_cells(&row.decode);
    vec![
        row.threads.to_string(),
        row.batch.to_string(),
        row.prompt_tokens.to_string(),
        row.generate_tokens.to_string(),
        prefill,
        prefill_spread,
        decode,
        decode_spread,
        giga(row.prefill_ops_per_s, 0),
        share(row.prefill_share_of_peak),
        giga(row.decode_read_bytes_per_s, 1),
        of_read,
        bytes(row.cache_bytes as u64),
    ]
}

/// The median and the deviation.
fn rate_cells(rate: &Option<Rate>) -> [String; 2] {
    let rate = rate.as_ref();
    [
        or_dash(rate.map(|rate| format!("{:.1}", rate.median))),
        or_dash(rate.map(|rate| format!("{:.0} %", 100.0 * rate.stddev / rate.mean))),
    ]
}

impl Row {
    /// Whether a card ran it: its operations were timed.
    fn is_of_card(&self) -> bool {
        !self.operations.is_empty() || !self.prefill_operations.is_empty()
    }

    fn is_above_the_machine(&self) -> bool {
        let above = |share: Option<f64>| share.is_some_and(|share| share > 1.0);
        above(self.prefill_share_of_peak) || (above(self.decode_share_of_read) && !self.linears_fit_cache)
    }
}
