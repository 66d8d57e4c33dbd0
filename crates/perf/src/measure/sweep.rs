//! The part of a sweep that every device shares: rows on disk, the budget, the counts. Each row is on disk before the
//! next row is begun, so that a sweep may be killed at any moment and continued.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::options::{SweepOptions, SweepSummary, Watch};
use crate::data::{BestRows, Dataset, Manifest, QualityFlag, Row, RowWriter, check_compatible};
use crate::error::PerfError;

/// When a budget is spent, or half of it where more than the other half went before now. None: never, by the clock's range.
fn end_of(started: Instant, budget: Duration) -> Option<Instant> {
    let half = started.checked_add(budget / 2)?;
    half.max(Instant::now()).checked_add(budget / 2)
}

/// The part of a sweep that every device has: rows, budget, counts.
pub(crate) struct Sweep<'a> {
    pub options: &'a SweepOptions,
    pub watch: &'a dyn Watch,
    pub writer: RowWriter,
    /// Rows of other folders.
    pub known: BestRows,
    /// Configurations that an earlier run left without a sound time.
    pub retries: HashSet<String>,
    /// Whether those are measured again now.
    pub is_retrying: bool,
    /// Whether something was left out because the sweep had to end.
    pub is_cut: bool,
    started: Instant,
    /// When the budget is spent.
    ends: Option<Instant>,
    pub summary: SweepSummary,
}

impl<'a> Sweep<'a> {
    /// Begins or goes on with a folder. The budget counts from `started` on: measuring the machine is a part of it, but at least half of it
    /// is left for products.
    pub fn open(
        options: &'a SweepOptions,
        watch: &'a dyn Watch,
        manifest: &Manifest,
        started: Instant,
    ) -> Result<Self, PerfError> {
        let mut known = BestRows::default();
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
        let unsound =
            rows.filter(|row| matches!(row.flag, Some(QualityFlag::Unsteady | QualityFlag::NotRun)));
        Ok(Self {
            options,
            watch,
            retries: unsound.map(Row::key).collect(),
            writer,
            known,
            is_retrying: false,
            is_cut: false,
            started,
            ends: options.budget.and_then(|budget| end_of(started, budget)),
            summary: SweepSummary::default(),
        })
    }

    /// Whether the budget is spent or somebody wants an end.
    pub fn is_over(&self) -> bool {
        self.watch.stops() || self.ends.is_some_and(|end| Instant::now() >= end)
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
        let row = &plausible(row.clone());
        let is_new = self.writer.append(row)?;
        self.summary.new_rows += usize::from(is_new);
        self.summary.new_energy_rows += usize::from(row.energy_j.is_some());
        self.summary.flagged_rows += usize::from(row.flag.is_some());
        if row.flag == Some(QualityFlag::Wrong) {
            self.summary.wrong_rows += 1;
            self.watch.say(&format!("wrong product: {}", row.key()));
        }
        Ok(())
    }

    pub fn ended(mut self) -> SweepSummary {
        self.summary.finished = !self.is_cut;
        self.summary.rows = self.writer.num_rows();
        self.summary.time_s = self.started.elapsed().as_secs_f64();
        self.summary
    }
}

/// What a row may keep: a counter that stood still or began again has shown no energy, and a clock that did shows no time.
fn plausible(mut row: Row) -> Row {
    if row.check().is_err() {
        (row.power_w, row.energy_j, row.energy_window_s, row.energy_runs) = (None, None, None, 0);
    }
    if row.check().is_err() {
        (row.time_q1_s, row.time_s, row.time_q3_s) = (None, None, None);
        row.flag = row.flag.or(Some(QualityFlag::BelowResolution));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::times::set_times;

    #[test]
    fn energy_of_a_counter_that_stood_still_and_a_time_of_nothing_are_not_kept() {
        let mut row = Row::blank("sgemm_tiled", (1, 1, 1));
        row.verified = "naive".to_owned();
        set_times(&mut row, vec![1e-3; 3]);
        (row.power_w, row.energy_j) = (Some(0.0), Some(0.0));
        let kept = plausible(row.clone());
        assert_eq!((kept.energy_j, kept.time_s, kept.flag), (None, Some(1e-3), None));
        row.time_s = Some(0.0);
        let kept = plausible(row);
        assert_eq!(
            (kept.time_s, kept.flag),
            (None, Some(QualityFlag::BelowResolution))
        );
        assert_eq!(kept.check(), Ok(()));
    }
}
