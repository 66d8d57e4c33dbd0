//! Options, timing, and the table that rows are printed to.

use std::io::Write as _;

use dualgrain_cpu::CpuDevice;
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 7;
const MIN_ROUND_S: f64 = 0.03;

/// What was asked for.
pub struct Options {
    pub threads: usize,
    pub isa: Option<String>,
    pub op: String,
    pub shape: String,
    pub csv: Option<String>,
}

impl Options {
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str| {
            let at = args.iter().position(|arg| arg == name)?;
            args.get(at + 1).cloned()
        };
        Self {
            threads: value("--threads").map_or(1, |v| v.parse().expect("a number of threads")),
            isa: value("--isa"),
            op: value("--op").unwrap_or_default(),
            shape: value("--shape").unwrap_or_default(),
            csv: value("--csv"),
        }
    }
}

/// Rows printed and collected as CSV.
pub struct Table {
    pub csv: String,
    filter: String,
    shape: String,
}

impl Table {
    pub fn new(filter: String, shape: String) -> Self {
        println!(
            "{:<22} {:<11} {:>3} {:<18} {:>11} {:>11} {:>9} unit",
            "op", "isa", "thr", "shape", "median_us", "least_us", "rate"
        );
        Self {
            csv: "op,isa,threads,shape,median_s,least_s,rate,unit\n".to_owned(),
            filter,
            shape,
        }
    }

    pub fn wants(&self, op: &str) -> bool {
        op.starts_with(&self.filter)
    }

    pub fn wants_shape(&self, shape: &str) -> bool {
        shape.starts_with(&self.shape)
    }

    /// Whether the filter names some of the operations that begin with `prefix`.
    pub fn narrows(&self, prefix: &str) -> bool {
        self.filter.starts_with(prefix)
    }

    /// Times `f` and prints `amount / least time` in units of 1e9.
    pub fn row(
        &mut self,
        device: &CpuDevice,
        op: &str,
        shape: &str,
        amount: f64,
        unit: &str,
        mut f: impl FnMut(),
    ) {
        if !self.wants(op) || !self.wants_shape(shape) {
            return;
        }
        let (median, least) = time(device.num_threads() == 1, &mut f);
        let (isa, threads, rate) = (device.isa().name(), device.num_threads(), amount / least / 1e9);
        println!(
            "{op:<22} {isa:<11} {threads:>3} {shape:<18} {:>11.1} {:>11.1} {rate:>9.1} {unit}",
            median * 1e6,
            least * 1e6
        );
        self.csv += &format!("{op},{isa},{threads},{shape},{median:.9},{least:.9},{rate:.3},{unit}\n");
        std::io::stdout().flush().expect("stdout");
    }
}

/// Seconds on the wall clock, or of this thread on the processor.
fn now(on_processor: bool) -> f64 {
    let clock = if on_processor {
        ClockId::ThreadCPUTime
    } else {
        ClockId::Monotonic
    };
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Median and least seconds a call.
fn time(on_processor: bool, f: &mut impl FnMut()) -> (f64, f64) {
    let mut round = |calls: usize| {
        let start = now(on_processor);
        (0..calls).for_each(|_| f());
        (now(on_processor) - start) / calls as f64
    };
    let calls = (MIN_ROUND_S / round(1).max(1e-7)).ceil().clamp(1.0, 1e6) as usize;
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(calls)).collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2], rounds[0])
}
