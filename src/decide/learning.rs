//! Learning from a measured set, as `fit`, `select` and `report` do it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dualgrain_perf::choose::{self as choosing, Regret};
use dualgrain_perf::{Dataset, FitOptions, HeldOut, Objective, PerfError};

use crate::cli::arguments::Common;
use crate::cli::terminal::Terminal;

/// Between looks at how far learning is.
const GLANCE: Duration = Duration::from_millis(50);

/// Parts that a set's shapes are dealt into to judge choices: each is chosen for by what 19 of 20 shapes teach. The model that
/// ships has learned from all; with five parts those that are judged would have learned from four fifths.
const CHOICE_FOLDS: usize = 20;

/// How to fit on as many threads as the command line says.
pub fn options(common: &Common) -> FitOptions {
    let usual = FitOptions::default();
    let threads = match common.threads {
        0 => usual.threads,
        threads => threads,
    };
    FitOptions { threads, ..usual }
}

/// The same, to judge choices by.
pub fn choice_options(common: &Common) -> FitOptions {
    FitOptions {
        folds: CHOICE_FOLDS,
        ..options(common)
    }
}

/// Whether sizes are chosen for these kernels, and not by a library: the project's own on a card.
#[cfg(feature = "cuda")]
pub fn chosen_here(data: &Dataset, kernel: &str) -> bool {
    data.manifest.machine.kind == dualgrain_perf::MachineKind::Gpu && kernel.contains("w4a8")
}

/// What choosing by held-out predictions loses on every product of `kernel` that was searched.
pub fn regrets(
    data: &Dataset,
    held: &[HeldOut],
    kernel: &str,
    by: Objective,
) -> Result<Vec<Regret>, PerfError> {
    #[cfg(feature = "cuda")]
    if chosen_here(data, kernel) {
        return choosing::gpu::learned_regrets(data, held, kernel, by);
    }
    choosing::regrets(data, held, kernel, by)
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
