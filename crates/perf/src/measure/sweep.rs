//! Sweeps: which products are measured (`space`), how each is checked and clocked, and how the rows come together.
//!
//! Correctness comes first: a product is checked at full size before it is timed, and a wrong one is marked and never timed.
//! Each row is on disk before the next is begun, so that a sweep may be killed at any moment and goes on where it was.

use super::space::Space;
use crate::data::{
    Configurations, Cut, Dataset, Layout, Mark, Row, RowWriter, check_compatible, check_vacant,
};
use crate::error::PerfError;
use crate::machine::Manifest;
use crate::predict::question;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// What a sweep is asked for.
#[derive(Debug, Clone)]
pub struct ProfileOptions {
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

impl ProfileOptions {
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
                hint: format!("{}this device has {}", question(got, kernels), kernels.join(", ")),
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
pub struct ProfileSummary {
    /// Rows in the folder now.
    pub rows: usize,
    /// Those of this run.
    pub new_rows: usize,
    /// Those of this run with energy.
    pub new_energy_rows: usize,
    /// Those of this run that were marked, whatever the reason.
    pub marked_rows: usize,
    /// Products of this run that were wrong.
    pub wrong_rows: usize,
    /// Rows that were there already.
    pub skipped_rows: usize,
    /// Whether everything was measured.
    pub finished: bool,
    /// Seconds.
    pub time_s: f64,
}

/// The part of a sweep that every device has: rows, budget, counts.
pub(crate) struct Sweep<'a> {
    pub options: &'a ProfileOptions,
    pub watch: &'a dyn Watch,
    pub writer: RowWriter,
    /// Rows of other folders.
    pub known: Configurations,
    /// Configurations that an earlier run left without a sound time.
    pub retries: HashSet<String>,
    /// Whether those are measured again now.
    pub is_retrying: bool,
    /// Whether something was left out because the sweep had to end.
    pub is_cut: bool,
    pub started: Instant,
    pub summary: ProfileSummary,
}

impl<'a> Sweep<'a> {
    /// Begins or goes on with a folder.
    pub fn open(
        options: &'a ProfileOptions,
        watch: &'a dyn Watch,
        manifest: &Manifest,
    ) -> Result<Self, PerfError> {
        let mut known = Configurations::default();
        for folder in &options.known {
            let set = Dataset::read(folder)?;
            check_compatible((folder, &set.manifest), (&options.out, manifest))?;
            set.rows.into_iter().for_each(|row| known.take(row));
        }
        let writer = match options.resume {
            true => RowWriter::open(&options.out, manifest)?,
            false => RowWriter::create(&options.out, manifest)?,
        };
        let rows = writer.rows().iter().chain(&known.rows);
        let unsound = rows.filter(|row| matches!(row.mark, Some(Mark::Unsteady | Mark::NotRun)));
        Ok(Self {
            options,
            watch,
            retries: unsound.map(Row::key).collect(),
            writer,
            known,
            is_retrying: false,
            is_cut: false,
            started: Instant::now(),
            summary: ProfileSummary::default(),
        })
    }

    /// Whether the budget is spent or somebody wants an end.
    pub fn is_over(&self) -> bool {
        let spent = |budget| self.started.elapsed() >= budget;
        self.watch.stops() || self.options.budget.is_some_and(spent)
    }

    /// Asked before each row: whether it may still be measured.
    pub fn begins(&mut self) -> bool {
        self.is_cut |= self.is_over();
        !self.is_cut
    }

    pub fn wants(&self, kernel: &str) -> bool {
        let kernels = &self.options.kernels;
        kernels.is_empty() || kernels.iter().any(|start| kernel.starts_with(start.as_str()))
    }

    /// Whether the row is still to be measured: nobody has it, or it `lacks` something, or its turn to be tried again has come.
    pub fn lacks(&mut self, row: &Row, lacks: impl Fn(&Row) -> bool) -> bool {
        let key = row.key();
        let is_retried = self.is_retrying && self.retries.contains(&key);
        let held = [self.writer.held(&key), self.known.get(&key)];
        let is_enough = !is_retried && held.iter().flatten().any(|held| !lacks(held));
        self.summary.skipped_rows += usize::from(is_enough);
        !is_enough
    }

    pub fn keep(&mut self, row: &Row) -> Result<(), PerfError> {
        let row = &possible(row.clone());
        let is_new = self.writer.append(row)?;
        self.summary.new_rows += usize::from(is_new);
        self.summary.new_energy_rows += usize::from(row.energy_j.is_some());
        self.summary.marked_rows += usize::from(row.mark.is_some());
        if row.mark == Some(Mark::Wrong) {
            self.summary.wrong_rows += 1;
            self.watch.say(&format!("wrong product: {}", row.key()));
        }
        Ok(())
    }

    pub fn ended(mut self) -> ProfileSummary {
        self.summary.finished = !self.is_cut;
        self.summary.rows = self.writer.num_rows();
        self.summary.time_s = self.started.elapsed().as_secs_f64();
        self.summary
    }
}

/// What a row may keep: a counter that stood still or began again has shown no energy, and a clock that did shows no time.
fn possible(mut row: Row) -> Row {
    if row.check().is_err() {
        (row.power_w, row.energy_j, row.energy_window_s, row.energy_runs) = (None, None, None, 0);
    }
    if row.check().is_err() {
        (row.time_q1_s, row.time_s, row.time_q3_s) = (None, None, None);
        row.mark = row.mark.or(Some(Mark::BelowResolution));
    }
    row
}

/// A row of which nothing is known but the product.
pub(crate) fn blank_row(kernel: &str, (m, n, k): (usize, usize, usize)) -> Row {
    Row {
        kernel: kernel.to_owned(),
        config: String::new(),
        m,
        n,
        k,
        group_size: 0,
        layout: Layout::Nt,
        alpha: 1.0,
        beta: 0.0,
        output: String::new(),
        tile_m: 0,
        tile_n: 0,
        tile_k: 0,
        stages: 0,
        threads: 0,
        cluster: 0,
        split_k: 0,
        cut: Cut::Whole,
        ctas: 0,
        ctas_per_sm: 0,
        occupancy: 0.0,
        registers: 0,
        shared_bytes: 0,
        waves: 0.0,
        verified: String::new(),
        mark: None,
        time_s: None,
        time_q1_s: None,
        time_q3_s: None,
        runs: 0,
        power_w: None,
        energy_j: None,
        energy_window_s: None,
        energy_runs: 0,
        sm_clock_hz: None,
        memory_clock_hz: None,
        temperature_c: None,
        throttle_reasons: None,
    }
}

/// Median and quartiles of times that need not be sorted; nothing of nothing.
pub(crate) fn quartiles(mut times: Vec<f64>) -> Option<[f64; 3]> {
    times.sort_by(f64::total_cmp);
    let last = times.len().checked_sub(1)?;
    let at = |share: f64| {
        let place = share * last as f64;
        let (low, high) = (times[place.floor() as usize], times[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    Some([at(0.25), at(0.5), at(0.75)])
}

/// Spread of the quartiles over the median beyond which repetitions count as unsteady.
pub(crate) const MOST_SPREAD: f64 = 0.12;

/// Writes median and quartiles into a row.
pub(crate) fn set_times(row: &mut Row, times: Vec<f64>) {
    row.runs = times.len();
    let Some([q1, median, q3]) = quartiles(times) else {
        return;
    };
    (row.time_q1_s, row.time_s, row.time_q3_s) = (Some(q1), Some(median), Some(q3));
    if q3 - q1 > MOST_SPREAD * median {
        row.mark = Some(Mark::Unsteady);
    }
}

/// Today in UTC, `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
    date(seconds.map_or(0, |time| time.as_secs()) / 86_400)
}

/// The date so many days after 1970-01-01 (Gregorian; era of 400 years, year from March).
fn date(days: u64) -> String {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours_and_a_single_time_is_all_three() {
        assert_eq!(quartiles(vec![5.0, 1.0, 2.0, 4.0]), Some([1.75, 3.0, 4.25]));
        assert_eq!(quartiles(vec![7.0]), Some([7.0; 3]));
        assert_eq!(quartiles(Vec::new()), None);
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(20_779), "2026-11-22");
    }

    #[test]
    fn energy_of_a_counter_that_stood_still_and_a_time_of_nothing_are_not_kept() {
        let mut row = blank_row("sgemm_tiled", (1, 1, 1));
        row.verified = "naive".to_owned();
        set_times(&mut row, vec![1e-3; 3]);
        (row.power_w, row.energy_j) = (Some(0.0), Some(0.0));
        let kept = possible(row.clone());
        assert_eq!((kept.energy_j, kept.time_s, kept.mark), (None, Some(1e-3), None));
        row.time_s = Some(0.0);
        let kept = possible(row);
        assert_eq!((kept.time_s, kept.mark), (None, Some(Mark::BelowResolution)));
        assert_eq!(kept.check(), Ok(()));
    }

    #[test]
    fn repetitions_far_apart_are_marked() {
        let mut row = blank_row("sgemm_tiled", (1, 1, 1));
        set_times(&mut row, vec![1.0, 1.01, 1.02]);
        assert_eq!((row.mark, row.time_s), (None, Some(1.01)));
        set_times(&mut row, vec![1.0, 2.0, 3.0]);
        assert_eq!(row.mark, Some(Mark::Unsteady));
    }
}
