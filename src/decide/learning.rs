//! Learning from a measured set, as `fit`, `select` and `report` do it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dualgrain_perf::{Dataset, FitOptions, HeldOut, PerfError};

use crate::cli::arguments::Common;
use crate::cli::terminal::Terminal;

/// Between looks at how far learning is.
const GLANCE: Duration = Duration::from_millis(50);

/// How to fit on as many threads as the command line says.
pub fn options(common: &Common) -> FitOptions {
    let usual = FitOptions::default();
    let threads = match common.threads {
        0 => usual.threads,
        threads => threads,
    };
    FitOptions { threads, ..usual }
}

/// What held-out folds of a set predict, with progress: each fold learns the set anew.
pub fn held_out(data: &Dataset, how: &FitOptions, terminal: &Terminal) -> Result<Vec<HeldOut>, PerfError> {
    let done = AtomicUsize::new(0);
    let task = format!("learning from {} rows", data.rows.len());
    std::thread::scope(|scope| {
        let learning = scope.spawn(|| dualgrain_perf::held_out(data, how, &done));
        while !learning.is_finished() {
            let learned = done.load(Ordering::Relaxed) as u64;
            terminal.progress(&task, "", learned, how.folds as u64);
            std::thread::sleep(GLANCE);
        }
        learning
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
