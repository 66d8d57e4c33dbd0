//! Finds times in another unit: too short for the machine a single row shows it, too long only beside the other rows of its kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::row::Row;
use crate::error::PerfError;
use crate::machine::{Machine, MachineKind};
use crate::operands::OperandTypes;
use crate::roofline::Roofline;

/// A row may take so many times as long for its work as the quick rows of its kernel. Of the shipped sets' rows the slowest takes 157 times as
/// long (`sgemm_tiled` in tiles of one element); milliseconds in the place of seconds are 1,000.
const MOST_SLOWER: f64 = 400.0;
/// The quick rows of a kernel: so many of ten are quicker.
const QUICK_TENTH: usize = 1;
/// What starting a product takes on any machine, in seconds.
const START_S: f64 = 1e-6;

/// The times of rows, in multiples of what the machine's ceilings allow, by kernel.
#[derive(Debug, Default)]
pub(crate) struct Paces(BTreeMap<String, Vec<Pace>>);

#[derive(Debug)]
struct Pace {
    multiple: f64,
    time_s: f64,
    path: PathBuf,
    line: u64,
}

impl Paces {
    /// Notes a row that stands in this line of a file. A kernel whose name tells no types has no ceilings.
    pub fn note(&mut self, row: &Row, machine: &Machine, path: &Path, line: u64) {
        let (Some(time_s), Ok(types)) = (row.time_s, OperandTypes::of_kernel(&row.kernel)) else {
            return;
        };
        let roofline = Roofline::new(&types, &row.product(), &row.output, machine);
        // The ceilings are those of all cores; a row may have run on one.
        let parts = match machine.kind {
            MachineKind::Cpu => machine.num_units as f64 / row.threads.clamp(1, machine.num_units) as f64,
            MachineKind::Gpu => 1.0,
        };
        let pace = Pace {
            multiple: time_s / (parts * (roofline.compute_s + roofline.memory_s) + START_S),
            time_s,
            path: path.to_owned(),
            line,
        };
        self.0.entry(row.kernel.clone()).or_default().push(pace);
    }

    /// Refuses times that are out of all proportion.
    ///
    /// # Errors
    /// The slowest row of the first kernel that has such.
    pub fn check(self) -> Result<(), PerfError> {
        for (kernel, mut paces) in self.0 {
            paces.sort_by(|a, b| a.multiple.total_cmp(&b.multiple));
            let of_quick = paces[paces.len() * QUICK_TENTH / 10].multiple.max(1.0);
            // Where even these are too slow, all rows are in another unit.
            let quick = if of_quick > MOST_SLOWER { 1.0 } else { of_quick };
            let late = paces.partition_point(|pace| pace.multiple <= MOST_SLOWER * quick);
            let num_late = paces.len() - late;
            if let Some(slowest) = paces.pop().filter(|_| num_late > 0) {
                return Err(slowest.refused(&kernel, num_late, quick));
            }
        }
        Ok(())
    }
}

impl Pace {
    fn refused(self, kernel: &str, num_late: usize, quick: f64) -> PerfError {
        let times = self.multiple / quick;
        PerfError::CorruptRow {
            path: self.path,
            line: self.line,
            what: format!(
                "time_s is {}: for its work {times:.0} times as long as quick rows of {kernel} take, expected at most {MOST_SLOWER:.0} times \
                 ({num_late} rows of {kernel} are beyond it); times are in seconds",
                self.time_s
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::row::tests::sound_row;
    use crate::data::tests::manifest;

    fn checked(times_s: impl IntoIterator<Item = f64>) -> Result<(), String> {
        let (machine, mut paces) = (manifest("NVIDIA H200").machine, Paces::default());
        for (line, time_s) in times_s.into_iter().enumerate() {
            let row = Row {
                time_s: Some(time_s),
                ..sound_row()
            };
            paces.note(&row, &machine, Path::new("rows.csv"), line as u64 + 2);
        }
        paces.check().map_err(|error| error.to_string())
    }

    #[test]
    fn times_in_another_unit_are_told_from_slow_ones() {
        let quick_s = 2e-5;
        let rows = |slow_s: f64| [quick_s; 9].into_iter().chain([slow_s]);
        assert_eq!(checked(rows(100.0 * quick_s)), Ok(()));
        let error = checked(rows(1_000.0 * quick_s)).unwrap_err();
        assert!(
            error.contains("rows.csv") && error.contains("11") && error.contains("in seconds"),
            "{error}"
        );
        // Half of the rows, and all of them.
        let half = (0..40).map(|row| if row % 2 == 0 { quick_s } else { 1_000.0 * quick_s });
        assert!(checked(half).unwrap_err().contains("20 rows"));
        assert!(checked([1_000.0 * quick_s; 10]).unwrap_err().contains("10 rows"));
        assert_eq!(checked([]), Ok(()));
    }

    #[test]
    fn one_core_of_many_is_not_slow() {
        let machine = Machine {
            kind: MachineKind::Cpu,
            num_units: 128,
            ..manifest("AMD EPYC").machine
        };
        let mut paces = Paces::default();
        for (threads, time_s) in [(128, 1e-4); 9].into_iter().chain([(1, 128.0 * 40.0 * 1e-4)]) {
            let row = Row {
                threads,
                time_s: Some(time_s),
                ..sound_row()
            };
            paces.note(&row, &machine, Path::new("rows.csv"), 2);
        }
        assert!(paces.check().is_ok());
    }
}
