//! What a sweep is asked for, whom it tells of its progress, and what it did.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::data::check_vacant;
use crate::error::{PerfError, suggestion};
use crate::measure::space::Space;

/// What a sweep is asked for.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// Beginnings of kernels' names; empty means all.
    pub kernels: Vec<String>,
    /// What is measured.
    pub space: Space,
    /// Folder of the rows.
    pub out: PathBuf,
    /// Go on with that folder, and measure its unsteady rows again; otherwise it must not hold anything.
    pub resume: bool,
    /// Folders of the same machine: only what they lack is measured.
    pub known: Vec<PathBuf>,
    /// Ends the sweep between two rows.
    pub budget: Option<Duration>,
    /// This part (from 0) of so many; the parts share no row.
    pub shard: (usize, usize),
    /// Ticks of the energy counter in a region.
    pub ticks: usize,
    /// `git describe` of the program.
    pub version: String,
}

impl SweepOptions {
    /// Refuses, before anything is measured, what would overwrite rows or measure nothing; `kernels` are those of the device.
    pub(crate) fn check(&self, kernels: &[&str]) -> Result<(), PerfError> {
        if !self.resume {
            let advice = "add --resume to go on with it, or choose another --out";
            check_vacant(&self.out, advice)?;
        }
        let begins_none = |start: &&String| !kernels.iter().any(|kernel| kernel.starts_with(start.as_str()));
        match self.kernels.iter().find(begins_none) {
            None => Ok(()),
            Some(got) => Err(PerfError::UnknownKernel {
                got: got.clone(),
                hint: format!(
                    "{}this device has {}",
                    suggestion(got, kernels),
                    kernels.join(", ")
                ),
            }),
        }
    }
}

/// Who watches a sweep.
pub trait Watch {
    /// `done` of `total` shapes are measured; `detail` comes next.
    fn progress(&self, detail: &str, done: usize, total: usize);
    /// Something to know.
    fn say(&self, line: &str);
    /// Whether to end between two rows.
    fn stops(&self) -> bool;
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SweepSummary {
    /// Rows in the folder now.
    pub rows: usize,
    /// Those of this run.
    pub new_rows: usize,
    /// Those of this run with energy.
    pub new_energy_rows: usize,
    /// Those of this run that were marked, whatever the reason.
    #[serde(rename = "marked_rows")]
    pub flagged_rows: usize,
    /// Products of this run that were wrong.
    pub wrong_rows: usize,
    /// Rows that were there already.
    pub skipped_rows: usize,
    /// Whether everything was measured.
    pub finished: bool,
    /// Seconds.
    pub time_s: f64,
}
